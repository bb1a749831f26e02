"""The worker plan: what flags and model settings together say about workers, and what they must not say."""

from dataclasses import replace
from pathlib import Path

import pytest

from tensorgate.gateway import options
from tensorgate.gateway.dispatch.devices import Slot
from tensorgate.gateway.dispatch.worker_client import LoadOptions
from tensorgate.gateway.dispatch.worker_pool import Isolation, WorkerSettings
from tensorgate.gateway.flag_parser import parse
from tensorgate.gateway.worker_plan import WorkerPlan
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.protobuf.config_pb2 import ConfigProto
from tensorgate.protos.worker_network import WorkerService, new_worker_key


def plan_of(
    tmp_path: Path, settings: str, *flags: str, environment: dict[str, str] | None = None, num_cpus: int = 8
) -> WorkerPlan:
    path = tmp_path / "settings"
    path.write_text(settings, encoding="utf-8")
    parsed = parse(["--model_base_path=/m", f"--model_settings_file={path}", *flags])
    made = options.from_flags(parsed)
    return WorkerPlan(made, environment or {}, num_cpus, 8, made.model_settings.of)


def test_without_settings_a_model_is_on_every_worker_of_its_device(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "", "--num_workers=2")
    assert plan.settings_of("m") == WorkerSettings()
    worker = plan.worker_options(plan.slots[1])
    assert (worker.name, worker.num_execution_threads, worker.stuck_timeout_s) == ("worker-1", 8, 0.0)


def test_a_models_settings_win_over_the_flags(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        """
        model { replicas: 2 worker_isolation: VERSION workers: "worker-0" }
        model { name: "m" worker_isolation: MODEL workers: "worker-1" workers: "worker-2" num_execution_threads: 3 }
        model { name: "shared" worker_isolation: DEVICE }
        """,
        "--num_workers=3",
        "--worker_isolation=model",
    )
    assert plan.settings_of("m") == WorkerSettings(Isolation.MODEL, 2, frozenset({"worker-1", "worker-2"}), 3)
    assert plan.settings_of("shared").isolation is Isolation.DEVICE
    assert plan.settings_of("unlisted") == WorkerSettings(Isolation.VERSION, 2, frozenset({"worker-0"}))


def test_a_models_threads_and_tolerance_go_into_its_load(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        """
        model { name: "m" worker_isolation: VERSION intra_op_parallelism_threads: 2 golden_tolerance: 0 }
        """,
    )
    common = LoadOptions(session_config=ConfigProto(inter_op_parallelism_threads=5).SerializeToString())
    own = plan.load_options("m", common)
    config = ConfigProto.FromString(own.session_config)
    assert (config.intra_op_parallelism_threads, config.inter_op_parallelism_threads) == (2, 5)
    assert own.golden_tolerance == 0.0
    assert plan.load_options("other", common) == common


def test_threads_that_nobody_has_set_follow_what_a_control_group_grants(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "", num_cpus=2)
    config = ConfigProto.FromString(plan.load_options("m", LoadOptions()).session_config)
    assert (config.intra_op_parallelism_threads, config.inter_op_parallelism_threads) == (2, 2)
    assert plan.worker_options(plan.slots[0]).num_execution_threads == 2
    set_by_flag = LoadOptions(session_config=ConfigProto(intra_op_parallelism_threads=7).SerializeToString())
    config = ConfigProto.FromString(plan.load_options("m", set_by_flag).session_config)
    assert config.intra_op_parallelism_threads == 7


@pytest.mark.parametrize(
    ("flags", "settings", "grows"),
    [
        (("--devices=gpu:0",), "", False),
        (("--devices=gpu:0,gpu:1",), "", False),
        (("--devices=gpu:0", "--num_workers=2"), "", True),
        (("--devices=gpu:0", "--worker_isolation=version"), "", True),
        (("--devices=gpu:0",), 'model { name: "m" worker_isolation: MODEL }', True),
    ],
)
def test_workers_that_may_share_a_gpu_do_not_take_all_of_its_memory(
    tmp_path: Path, flags: tuple[str, ...], settings: str, grows: bool
) -> None:
    plan = plan_of(tmp_path, settings, *flags)
    environment = plan.worker_options(plan.slots[0]).environment
    assert environment["CUDA_VISIBLE_DEVICES"] == "0"
    assert ("TF_FORCE_GPU_ALLOW_GROWTH" in environment) is grows


@pytest.fixture
def key_flag(tmp_path: Path) -> str:
    path = tmp_path / "key"
    path.write_text(new_worker_key(), encoding="ascii")
    return f"--worker_key_file={path}"


def test_names_that_stand_for_workers_stand_beside_addresses_and_settings_choose_them_whole(
    tmp_path: Path, key_flag: str
) -> None:
    plan = plan_of(
        tmp_path,
        'model { name: "m" workers: "dns://gpus:9900" workers: "worker-1" }',
        "--workers=tcp://10.0.0.7:9900,dns://gpus:9900,tcp://10.0.0.8:9900,dns://cpus:9900,dns://gpus:9900",
        key_flag,
    )
    assert [(slot.name, slot.address) for slot in plan.slots] == [
        ("worker-0", "tcp://10.0.0.7:9900"),
        ("worker-1", "tcp://10.0.0.8:9900"),
    ]
    assert plan.services == (WorkerService("gpus", 9900), WorkerService("cpus", 9900))
    found = Slot("worker-2", "", "tcp://10.0.0.9:9900", "dns://gpus:9900")
    assert [plan.settings_of("m").may_use(slot) for slot in (*plan.slots, found)] == [False, True, True]
    options_of_found = plan.worker_options(found)
    assert (options_of_found.address, options_of_found.environment) == ("tcp://10.0.0.9:9900", {})
    assert options_of_found.key is not None


def test_a_worker_that_a_name_stands_for_cannot_be_chosen_alone(tmp_path: Path, key_flag: str) -> None:
    with pytest.raises(ServingError, match="name the worker 'worker-0'; there are dns://w:9900"):
        plan_of(tmp_path, 'model { name: "m" workers: "worker-0" }', "--workers=dns://w:9900", key_flag)


def test_a_name_of_workers_wants_a_key_whatever_it_stands_for(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="--worker_key_file is needed for a name"):
        plan_of(tmp_path, "", "--workers=dns://localhost:9900")


@pytest.mark.parametrize("text", ["dns:w:9900", "dns://w", "dns://w:0", "dns://w:65534", "dns://:1", "dns://[::1]:1"])
def test_what_is_no_name_of_workers_is_refused(tmp_path: Path, text: str, key_flag: str) -> None:
    with pytest.raises(ServingError, match="a name of workers is dns://NAME:PORT, PORT 1 to 65533") as caught:
        plan_of(tmp_path, "", f"--workers={text}", key_flag)
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            'model { name: "m" workers: "worker-2" }',
            "Model settings of 'm' name the worker 'worker-2'; there are worker-0, worker-1",
        ),
        (
            "model { num_execution_threads: 2 intra_op_parallelism_threads: 1 }",
            "Model settings for all models set num_execution_threads, intra_op_parallelism_threads, which needs"
            " worker_isolation MODEL or VERSION: threads are those of a whole process",
        ),
        (
            'model { name: "m" worker_isolation: MODEL num_execution_threads: 4000000000 }',
            "Model settings of 'm' set num_execution_threads to 4000000000, which no machine has",
        ),
        ('model { name: "m" golden_tolerance: -1 }', "Model settings of 'm' set golden_tolerance to -1.0, below 0"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_start(tmp_path: Path, settings: str, text: str) -> None:
    with pytest.raises(ServingError) as caught:
        plan_of(tmp_path, settings, "--num_workers=2")
    assert (caught.value.code, caught.value.message) == (Code.INVALID_ARGUMENT, text)


def test_options_of_a_worker_follow_the_flags(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        "",
        "--num_execution_threads=3",
        "--worker_stuck_timeout_s=9",
        "--worker_transport=zmq",
        "--devices=cpu",
        "--op_libraries=/ops/a.so",
    )
    worker = plan.worker_options(plan.slots[0])
    assert (worker.num_execution_threads, worker.stuck_timeout_s, worker.uses_stream) == (3, 9.0, False)
    assert worker.op_libraries == ("/ops/a.so",)
    assert worker == replace(worker, environment={"CUDA_VISIBLE_DEVICES": "-1"})
