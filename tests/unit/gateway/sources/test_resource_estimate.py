"""The estimate of a version's memory: its files, and a fifth on top."""

from pathlib import Path

from tensorgate.gateway.sources.resource_estimate import estimated_bytes


def test_all_files_count_wherever_they_lie_in_the_version(tmp_path: Path) -> None:
    (tmp_path / "variables").mkdir()
    (tmp_path / "saved_model.pb").write_bytes(b"x" * 100)
    (tmp_path / "variables" / "variables.data-00000-of-00001").write_bytes(b"x" * 900)
    assert estimated_bytes(str(tmp_path)) == 1200


def test_what_cannot_be_read_counts_nothing(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert estimated_bytes(str(tmp_path)) == 0
    assert estimated_bytes(str(tmp_path / "nowhere")) == 0
