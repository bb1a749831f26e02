"""Which devices workers run on, and what a worker's environment has to say of its device before it starts.

Under the worker pool; pure. TensorFlow looks at the environment once, when its library is loaded.

Source: of CUDA_VISIBLE_DEVICES, NVIDIA's CUDA programming guide; of TF_FORCE_GPU_ALLOW_GROWTH, tensorflow/core/
common_runtime/gpu/gpu_process_state and gpu_device.cc.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tensorgate.protos.status_codes import Code, ServingError

CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a worker: the name by which settings choose it, and its device.

    An empty ``device`` is whatever TensorFlow finds. ``address``: of a worker on the network; empty: we start it.
    ``service``: the name, as dns://NAME:PORT, by which the address was found; settings choose it by that.
    """

    name: str
    device: str
    address: str = ""
    service: str = ""


def slots_of(devices: str, num_workers: int) -> tuple[Slot, ...]:
    """The slots for a comma list of devices, ``num_workers`` on each: worker-0, worker-1, …

    Raises ServingError INVALID_ARGUMENT for a device that is none, or named twice.
    """
    names = [each.strip() for each in devices.split(",") if each.strip()] or [""]
    for each in names:
        if each and not re.fullmatch(r"cpu|gpu:\d{1,4}", each):
            raise ServingError(Code.INVALID_ARGUMENT, f"--devices takes cpu, gpu:0, gpu:1, …; got {each!r}")
        if names.count(each) > 1:
            raise ServingError(
                Code.INVALID_ARGUMENT, f"--devices names {each} twice; --num_workers says how many workers each has"
            )
    return tuple(
        Slot(f"worker-{number}", device)
        for number, device in enumerate(device for device in names for _ in range(num_workers))
    )


def environment_of(device: str, shares_device: bool, inherited: Mapping[str, str]) -> dict[str, str]:
    """What to add to the environment of a worker on ``device``.

    ``inherited`` is ours: where it lets us see some GPUs only, gpu:0 is the first of those. With ``shares_device``
    other workers use the card too, so that none may take all of its memory at once, as TensorFlow does by default.
    Raises ServingError INVALID_ARGUMENT for a GPU beyond those.
    """
    if device == CPU:
        return {"CUDA_VISIBLE_DEVICES": "-1"}
    added = {}
    if shares_device and "TF_FORCE_GPU_ALLOW_GROWTH" not in inherited:
        added["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    if device:
        number = int(device.removeprefix("gpu:"))
        visible = inherited.get("CUDA_VISIBLE_DEVICES")
        if visible is None:
            added["CUDA_VISIBLE_DEVICES"] = str(number)
        else:
            cards = [each.strip() for each in visible.split(",") if each.strip()]
            if number >= len(cards):
                raise ServingError(
                    Code.INVALID_ARGUMENT, f"--devices names {device}, but CUDA_VISIBLE_DEVICES is {visible!r}"
                )
            added["CUDA_VISIBLE_DEVICES"] = cards[number]
    return added
