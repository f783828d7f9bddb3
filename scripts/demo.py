"""``make demo``: the whole story on the committed example, ending with where everything lies."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent


def run(title: str, *command: str, accepted: tuple[int, ...] = (0,)) -> int:
    """Run one command of the story, showing it as a reader would type it."""
    print(f"\n\033[1m{title}\033[0m\n$ {' '.join(command)}", flush=True)
    code = subprocess.run([str(BIN / command[0]), *command[1:]], check=False).returncode
    if code not in accepted:
        sys.exit(code)
    return code


def main(folder: Path) -> None:
    """Build, verify with a re-run, render."""
    started = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    keys, bundle, report = folder / "keys", folder / "bundle", folder / "report.json"

    run("1  The provider makes a key", "bundler", "keygen", "-o", str(keys))
    shutil.copyfile(keys / "trust.pem", folder / "trust.pem")
    run(
        "2  and packages the runs of the MLflow store",
        "build-bundle", "example_bundle/bundle.yaml", "-o", str(bundle), "--key", str(keys / "key.pem"),
    )  # fmt: skip
    # 6 is an honest answer too: this machine may not give the same bits.
    code = run(
        "3  An assessor, with nothing but the bundle and the public key, verifies it and re-runs the training",
        "verify-bundle", str(bundle), "--trust", str(folder / "trust.pem"), "--rerun",
        "--report", str(report),
        accepted=(0, 6),
    )  # fmt: skip
    run(
        "4  and browses it offline",
        "bundler", "site", str(bundle), "--report", str(report), "--trust", str(folder / "trust.pem"),
        "-o", str(folder / "site"),
    )  # fmt: skip
    print(f"\n\033[1mDone in {time.monotonic() - started:.0f} s.\033[0m")
    print(
        f"  bundle      {bundle}/            signed evidence; VERIFY.md in it needs only sha256sum and openssl"
    )
    print(f"  public key  {folder / 'trust.pem'}")
    print(f"  report      {report}       every check, finding and figure")
    print(
        f"  site        {folder / 'site' / 'index.html'}    open it in any browser, no server needed"
    )
    print("\nTry: change any byte in the bundle and verify again.")
    sys.exit(code)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
