"""``make demo``: the whole story on the committed example, ending with where everything lies."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent
MEANING = {
    1: "a claim is not met",
    4: "the packages of the training are not installed here, so it was not re-run",
    5: "no sandbox works here, so the training was not re-run",
    6: "nothing contradicts the claims, but this machine cannot settle all of them",
}
"""Honest answers, too: see docs/exit-codes.md."""


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
    # The site shows whatever was found, unless the bundle is not intact.
    code = run(
        "3  An assessor, with nothing but the bundle and the public key, verifies it and re-runs the training",
        "verify-bundle", str(bundle), "--trust", str(folder / "trust.pem"), "--rerun",
        "--policy", "example_bundle/policy.yaml", "--report", str(report),
        accepted=(0, 1, 4, 5, 6),
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
    if code:
        print(f"\n\033[1mVerification ended with exit code {code}\033[0m: {MEANING[code]}.")
        print("What was found, and what to do about it, is printed under step 3 and on the site.")
    if code == 1 and is_shallow():
        print("This is a shallow clone, which lacks history: `git fetch --unshallow`, then again.")
    sys.exit(code)


def is_shallow() -> bool:
    """Whether this checkout lacks older commits."""
    command = ["git", "rev-parse", "--is-shallow-repository"]
    try:
        return subprocess.run(command, check=False, capture_output=True).stdout == b"true\n"
    except OSError:
        return False


if __name__ == "__main__":
    main(Path(sys.argv[1]))
