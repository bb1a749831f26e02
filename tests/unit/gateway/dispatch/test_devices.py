"""Devices: the slots for workers, and what a worker's environment says of its device."""

import pytest

from tensorgate.gateway.dispatch.devices import Slot, environment_of, slots_of
from tensorgate.protos.status_codes import Code, ServingError


def test_without_devices_there_are_workers_on_whatever_there_is() -> None:
    assert slots_of("", 1) == (Slot("worker-0", ""),)
    assert slots_of("", 2) == (Slot("worker-0", ""), Slot("worker-1", ""))


def test_each_device_has_that_many_workers() -> None:
    assert slots_of("gpu:0, gpu:3", 2) == (
        Slot("worker-0", "gpu:0"),
        Slot("worker-1", "gpu:0"),
        Slot("worker-2", "gpu:3"),
        Slot("worker-3", "gpu:3"),
    )


@pytest.mark.parametrize(
    ("devices", "text"),
    [
        ("tpu", "--devices takes cpu, gpu:0, gpu:1, …; got 'tpu'"),
        ("gpu", "got 'gpu'"),
        ("cpu,gpu:-1", "got 'gpu:-1'"),
        ("cpu,cpu", "--devices names cpu twice; --num_workers says how many workers each has"),
    ],
)
def test_what_is_no_device_or_there_twice_is_refused(devices: str, text: str) -> None:
    with pytest.raises(ServingError) as caught:
        slots_of(devices, 1)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert text in caught.value.message


@pytest.mark.parametrize(
    ("device", "shares", "inherited", "added"),
    [
        ("", False, {}, {}),
        ("", True, {}, {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}),
        ("cpu", True, {}, {"CUDA_VISIBLE_DEVICES": "-1"}),
        ("gpu:1", False, {}, {"CUDA_VISIBLE_DEVICES": "1"}),
        ("gpu:1", False, {"CUDA_VISIBLE_DEVICES": "4, GPU-abc"}, {"CUDA_VISIBLE_DEVICES": "GPU-abc"}),
        ("gpu:0", True, {}, {"CUDA_VISIBLE_DEVICES": "0", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}),
        ("gpu:0", True, {"TF_FORCE_GPU_ALLOW_GROWTH": "false"}, {"CUDA_VISIBLE_DEVICES": "0"}),
    ],
)
def test_the_environment_shows_a_worker_its_own_device_only(
    device: str, shares: bool, inherited: dict[str, str], added: dict[str, str]
) -> None:
    assert environment_of(device, shares, inherited) == added


def test_a_gpu_beyond_those_that_we_may_see_is_refused() -> None:
    with pytest.raises(ServingError, match="--devices names gpu:2, but CUDA_VISIBLE_DEVICES is '0,1'"):
        environment_of("gpu:2", False, {"CUDA_VISIBLE_DEVICES": "0,1"})
