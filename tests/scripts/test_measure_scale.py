"""Tests of scripts/measure_scale.py with few rows."""

import json
import subprocess


def test_measure_scale_keeps_results_of_other_phases(root, commands, tmp_path):
    output = tmp_path / "scale.json"
    output.write_text(json.dumps({"speed": {"median_ratio": 1.0}}))
    command = ["python", "scripts/measure_scale.py", "memory", "--rows", "2000", "--output", str(output)]
    subprocess.run(command, cwd=root, env=commands.environment, check=True, capture_output=True)
    results = json.loads(output.read_text())
    assert results["speed"] == {"median_ratio": 1.0}
    assert results["memory"]["rows"] == 1984
    assert len(results["memory"]["resident_mb"]) >= 20
