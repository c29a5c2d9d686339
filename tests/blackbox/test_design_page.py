"""docs/design-a-policy.md is one session at a shell: its blocks run one after the other, and say what the page says they say."""

import os
import pathlib
import re
import subprocess

import harness

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs/design-a-policy.md"


def test_the_page_runs_from_top_to_bottom(tmp_path):
    blocks = re.findall(r"^```sh design\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    assert len(blocks) >= 6
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/pdctl").symlink_to(os.path.abspath(harness.PDCTL))
    env = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PDCTL_STORE": str(tmp_path / "store.db")}
    script = "\n".join(f"echo @@{i}\n{b}" for i, b in enumerate(blocks))
    done = subprocess.run(["bash", "-eu", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    part = [x.split("\n", 1)[1] for x in done.stdout.split("@@")[1:]]
    assert re.search(r"^recommended: (no change; |pdctl serve )--policy \w+", part[0], re.M), part[0]
    assert "0.5*p99_ttft_ms + 20*mean_tpot_ms" in part[1] and "recommended: " in part[1]
    assert re.search(r"^  \d workers? keeps? the goals for", part[2], re.M), part[2]
    assert "mine.yaml: ok, 3 rows at 1 point, 9 replays, 2 expectations\n" in part[3] and "MISSED" not in part[3] and "2 ok" in part[3]
    assert "mine.yaml: ok, 18 rows at 6 points, 54 replays, 2 expectations\n" in part[4]
    assert (tmp_path / "whole.json").read_bytes() == (tmp_path / "sweep.json").read_bytes()
