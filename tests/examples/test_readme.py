"""The README says what is true: its example is run, twice, as a newcomer would."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_example_runs_and_runs_again(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[0]
    (tmp_path / "orders.py").write_text(code)
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "orders.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert (done.returncode, done.stdout) == (0, "payment for 7: approved\n"), done.stderr
    assert (tmp_path / "orders.db").exists()
