from modeling_umons.utils import progress
from modeling_umons.utils.progress import Progress


def test_progress_without_terminal_prints_lines_with_time_left(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with Progress("umons predict", total=1000, done=100, unit="row") as bar:
        for seconds in (5, 10, 15, 20):
            clock[0] = seconds
            bar.update(100)
    assert capsys.readouterr().err.splitlines() == [
        "umons predict: 300 of 1,000 rows, 20 rows/s, 00:35 left",
        "umons predict: 500 of 1,000 rows, 20 rows/s, 00:25 left",
    ]


def test_progress_of_other_ranks_prints_nothing(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    Progress("x", total=2, is_shown=False).update(1)
    assert capsys.readouterr().err == ""
    Progress("x", total=2).update(1)
    assert "x: 1 of 2 rows" in capsys.readouterr().err
