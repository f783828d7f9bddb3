"""Training code that attacks whoever repeats it, through the real ``verify-bundle --rerun`` and the real sandboxes.

It behaves while the provider trains and attacks in the verifier's hands. What single system calls may do is the subject
of tests/unit/sandbox/test_attacks.py; here the whole command must stand: a clear finding, a documented exit code, no
process and no folder left, nothing outside changed, nothing learnt that the report would carry away.

An attack that succeeds ends with exit code 3 and the line ``REACHED``, so that a training that comes out bit for bit
is proof that all of it failed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

import pytest

from bundler.errors import SandboxUnavailableError
from bundler.sandbox import find
from tests import small

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("hostile")]

CANARY = "canary-7f1c2a"
"""Stands in a key that everybody may read, and in the verifier's environment."""

QUIET = """
def before(out): pass
def after(out): pass
def scoring(results): pass
"""

PRELUDE = """
import itertools, os, pathlib, signal, socket, subprocess, sys, time

def reached(what):
    print("REACHED", what, flush=True)
    os._exit(3)

def works(function, *arguments):
    try:
        function(*arguments)
    except (OSError, ValueError):
        return False
    return True
"""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Code of ``before``, ``after`` the training or ``scoring``, and what ``verify-bundle`` makes of it."""

    before: str = "pass"
    after: str = "pass"
    scoring: str = "pass"
    options: tuple[object, ...] = ()
    exit_code: int = 6
    finding: str | None = "rerun-failed"
    says: str = ""

    def source(self, **places: object) -> str:
        parts = [PRELUDE, *(f"{name.upper()} = {value!r}" for name, value in places.items())]
        for name, argument in (("before", "out"), ("after", "out"), ("scoring", "results")):
            body = "\n".join(f"    {line}" for line in getattr(self, name).strip().splitlines())
            parts.append(f"def {name}({argument}):\n{body}")
        return "\n".join(parts) + "\n"


def blocked(before: str) -> Attack:
    """An attack of which nothing may succeed: the training ends as declared."""
    return Attack(before=before, exit_code=0, finding=None)


def output(after: str, says: str, finding: str = "rerun-output", **more) -> Attack:
    return Attack(after=after, finding=finding, says=says, **more)


NETWORK = blocked("""
for address in (("127.0.0.1", PORT), ("192.0.2.1", 443), ("8.8.8.8", 53)):
    with socket.socket() as s:
        s.settimeout(1)
        if s.connect_ex(address) in (0, 11): reached(address)
with socket.socket(socket.AF_UNIX) as s:
    if works(s.connect, "\\0" + ABSTRACT): reached("abstract socket")
with socket.socket(socket.AF_UNIX) as s:
    if works(s.connect, HOME + "/agent"): reached("agent")
if works(socket.gethostbyname, "example.org"): reached("names")
""")

HOME_AND_KEYS = blocked("""
def look(path):
    if CANARY_HEAD + "7f1c2a" in pathlib.Path(path).read_text(errors="replace"): reached(path)
for path in (HOME + "/.ssh/id_ed25519", "/proc/1/root" + HOME + "/.ssh/id_ed25519", "../" * 20 + HOME + "/.ssh/id_ed25519"):
    works(look, path)
for number, path in enumerate((HOME + "/.ssh/id_ed25519", "/proc/1/root" + HOME + "/.ssh/id_ed25519")):
    for take in (os.link, os.rename):
        # What comes into a folder of one's own can be read there.
        if works(take, path, out.parent / f"taken-{number}"): reached(f"{path} by {take.__name__}")
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    for name in ("environ", "cmdline", "root" + HOME + "/.ssh/id_ed25519", "cwd/../home/.ssh/id_ed25519"):
        works(look, folder / name)
for folder in (HOME, os.path.dirname(HOME), os.environ["HOME"], "/root", "/home"):
    for top, _, names in itertools.islice(os.walk(folder), 30):
        for name in names[:20]: works(look, os.path.join(top, name))
if works(os.open, "/etc/shadow", os.O_RDONLY): reached("shadow")
""")

OUTSIDE = blocked("""
folders = [HOME, ROOT, ROOT + "/keys", ROOT + "/state", ROOT + "/bundle", ROOT + "/bundle/data", "/usr", "/etc", "/",
           "/bundle", "/bundle/data", "/bundle/data/datasets", os.path.dirname(os.__file__), os.path.dirname(sys.executable)]
if pathlib.Path("/bundle").exists():
    folders += [top for top, _, _ in os.walk("/bundle") if not top.startswith(os.getcwd())]
for folder in folders:
    if works(open, folder + "/planted", "w"): reached(folder)
    if folder.startswith(ROOT) or folder == HOME:
        for make in (os.mkdir, os.mkfifo):
            if works(make, folder + "/planted"): reached(f"{folder} by {make.__name__}")
for file in (HOME + "/.ssh/id_ed25519", ROOT + "/bundle/data/bundle.json", ROOT + "/state/session.json"):
    for attempt, more in ((open, ["a"]), (os.truncate, [0]), (os.chmod, [0]), (os.utime, [(1, 1)]), (os.rename, [file + "2"]), (os.unlink, [])):
        if works(attempt, file, *more): reached(f"{file} by {attempt.__name__}")
""")

PTRACE = blocked("""
import ctypes
c = ctypes.CDLL(None, use_errno=True)
for pid in (1, os.getppid(), VERIFIER):
    if pid != os.getpid() and c.ptrace(16, pid, 0, 0) == 0: reached(f"ptrace {pid}")
    if works(open, f"/proc/{pid}/mem", "r+b") and pid != os.getpid(): reached(f"memory of {pid}")
""")

SIGNALS = blocked("""
inside = pathlib.Path(f"/proc/{VERIFIER}/cmdline")
own = inside.exists() and MARKER in inside.read_text()
# A signal that does no harm: if it can be sent, so can any other.
if not own and works(os.kill, VERIFIER, signal.SIGCONT): reached("the verifier")
works(os.kill, 1, signal.SIGTERM)
works(os.kill, 1, signal.SIGSTOP)
""")

DAEMONS = Attack(
    after="""
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", "import time; time.sleep(300)", MARKER])
        os._exit(0)
""",
    exit_code=0,
    finding=None,
)

DISK = Attack(
    before="""
block = bytes(1 << 20)
for number in range(10**6):
    with open(out.parent / f"{number % 50}", "ab") as file: file.write(block)
""",
    options=("--disk-limit", "30M"),
    says="output limit",
)

FORK_BOMB = Attack(
    before="""
deadline = time.monotonic() + 120
while time.monotonic() < deadline:
    try: os.fork()
    except OSError: time.sleep(1)
""",
    options=("--time-limit", "2"),
    says="timed out",
)

ENDLESS = Attack(
    before="signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(1)",
    options=("--time-limit", "1"),
    says="timed out",
)

KILLS_PARENT = Attack(
    before="works(os.kill, os.getppid(), signal.SIGKILL)\ntime.sleep(1)\nos._exit(4)"
)

ATTACKS = {
    "network": NETWORK,
    "reads home and keys": HOME_AND_KEYS,
    "writes outside its output": OUTSIDE,
    "ptrace": PTRACE,
    "signals to the verifier": SIGNALS,
    "leaves daemons behind": DAEMONS,
    "fills the disk": DISK,
    "fork bomb": FORK_BOMB,
    "endless": ENDLESS,
    "kills its parent": KILLS_PARENT,
    "kills its process group": Attack(before="os.killpg(0, signal.SIGKILL)"),
    "kills all that it can": Attack(before="works(os.kill, -1, signal.SIGKILL)\nos._exit(4)"),
    "a swarm of files": Attack(
        before="for number in range(12_000): (out.parent / str(number)).touch()\ntime.sleep(60)",
        says="output limit",
    ),
    "fills memory": Attack(
        before="try: held = [bytearray(b'x' * (16 << 20)) for _ in range(100)]\nexcept MemoryError: os._exit(5)",
        options=("--memory-limit", "256M"),
    ),
    "10 GB of log": Attack(
        before="block = b'x' * (1 << 20)\nfor _ in range(10_000): os.write(1, block)",
        says="log limit",
    ),
    "exits while children write": Attack(
        after="""
if os.fork() == 0:
    for number in range(10**7):
        (out / "late.txt").write_text(str(number))
""",
        exit_code=0,
        finding=None,
    ),
    "terminal sequences in the log": Attack(
        before="sys.exit('\\x1b]0;owned\\x07\\x1b[2J\\u202everified (exit 0)')", says="owned"
    ),
    "links instead of results": output(
        """
for name, to in (("metrics.jsonl", "/etc/passwd"), ("model.safetensors", HOME + "/.ssh/id_ed25519")):
    (out / name).unlink()
    (out / name).symlink_to(to)
""",
        "left no artefact model.safetensors",
    ),
    "the output folder is a link": output(
        "os.rename(out, out.parent / 'elsewhere')\nout.symlink_to(HOME)", ""
    ),
    "FIFO": output("os.mkfifo(out / 'pipe')", "FIFO"),
    "FIFO instead of metrics": output(
        "(out / 'metrics.jsonl').unlink()\nos.mkfifo(out / 'metrics.jsonl')", "FIFO"
    ),
    "socket": output(
        "import socket\nos.chdir(out)\nsocket.socket(socket.AF_UNIX).bind('s')", "socket"
    ),
    "hard links": output("os.link(out / 'params.json', out / 'again')", "hard links"),
    # Where the verifier is root, taking the output over from the job's user has cleared the bit already.
    "set-uid": Attack(
        after="(out / 'shell').touch()\n(out / 'shell').chmod(0o4755)",
        exit_code=0 if os.geteuid() == 0 else 6,
        finding=None if os.geteuid() == 0 else "rerun-output",
    ),
    "devices": Attack(
        after="if works(os.mknod, out / 'null', 0o20666, os.makedev(1, 3)): reached('device')",
        exit_code=0,
        finding=None,
    ),
    "deep folders": Attack(
        after="os.chdir(out)\nfor _ in range(2000):\n    os.mkdir('d')\n    os.chdir('d')",
        says="nested more than",
    ),
    "names with escape sequences": output(
        "(out / '\\x1b[31mred\\nverified (exit 0)').touch()", "forbidden characters"
    ),
    "nothing may be read": Attack(
        after="(out / 'shut').mkdir()\n(out / 'shut/a').touch()\n(out / 'shut/a').chmod(0)\n(out / 'shut').chmod(0)\n(out / 'metrics.jsonl').chmod(0)\nout.chmod(0)",
        exit_code=-1,
        finding=None,
    ),
    "a gigantic metrics file": output(
        "with (out / 'metrics.jsonl').open('r+b') as file: file.truncate(3 << 30)", "metrics.jsonl"
    ),
    "a gigantic parameter file": output(
        "with (out / 'params.json').open('r+b') as file: file.truncate(3 << 30)", "params.json"
    ),
    "a gigantic model": output(
        "with (out / 'model.safetensors').open('r+b') as file: file.truncate(3 << 30)",
        "far larger than the declared one",
    ),
    "NaN": Attack(
        after="""
path = out / "metrics.jsonl"
path.write_text(path.read_text().replace('"holdout_auc": 0', '"holdout_auc": NaN, "x": 0'))
""",
        # The declared weights, bit for bit, with another result: that contradicts, whoever made it so.
        exit_code=1,
        finding="rerun-metric-contradicts",
        says="holdout_auc",
    ),
    "a number that is none": output(
        "(out / 'metrics.jsonl').write_text('{\"step\": 1, \"holdout_auc\": 1e400}\\n')", "1e400"
    ),
    "a name twice": output(
        '(out / \'metrics.jsonl\').write_text(\'{"step": 1, "holdout_auc": 0.9, "holdout_auc": 0.8}\\n\')',
        "twice",
    ),
    "JSON of a million brackets": output(
        "(out / 'metrics.jsonl').write_text('[' * 1_000_000 + '\\n')", "nested"
    ),
    "an integer of a million digits": output(
        "(out / 'metrics.jsonl').write_text('{\"step\": ' + '9' * 1_000_000 + '}\\n')",
        "metrics.jsonl",
    ),
    "an environment of a million brackets": Attack(
        after="(out / 'environment.json').write_text('[' * 1_000_000)", exit_code=0, finding=None
    ),
    "a safetensors header of 2^62 bytes": output(
        "(out / 'model.safetensors').write_bytes((1 << 62).to_bytes(8, 'little') + bytes(88))",
        "header",
    ),
    "a safetensors header of brackets": output(
        "text = b'[' * 60_000\n(out / 'model.safetensors').write_bytes(len(text).to_bytes(8, 'little') + text)",
        "",
    ),
    "a tensor of 2^60 numbers": output(
        """
text = b'{"weights":{"dtype":"F32","shape":[1152921504606846976],"data_offsets":[0,4611686018427387904]}}'
(out / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(20))
""",
        "",
    ),
    "predictions of one endless line": output(
        "(out / 'predictions.csv').write_text('\"' + 'x' * 1_000_000)",
        "predictions.csv",
        "rerun-predictions-differ",
    ),
    "scoring that never ends": Attack(
        scoring="while True: time.sleep(1)",
        options=("--time-limit", "1"),
        finding="evaluation-failed",
        says="timed out",
    ),
    "scoring that attacks": Attack(
        scoring="""
for path in (HOME + "/.ssh/id_ed25519", ROOT + "/state/session.json"):
    if works(open, path): reached(path)
for folder in (ROOT, HOME, "/bundle/data"):
    if works(open, folder + "/planted", "w"): reached(folder)
results.unlink(missing_ok=True)
results.symlink_to("/etc/passwd")
""",
        finding="evaluation-failed",
        says="there is no file metrics.json",
    ),
    "scoring that gives escape sequences": Attack(
        scoring='results.write_text(\'{"\\x1b[2J holdout_auc": "\\x1b[2J"}\')',
        finding="evaluation-failed",
    ),
    "scoring that gives 3 GB": Attack(
        scoring="with results.open('wb') as file: file.truncate(3 << 30)",
        finding="evaluation-failed",
        says="larger than",
    ),
}

FOR_SANDLOCK = (
    "network", "reads home and keys", "writes outside its output", "ptrace", "leaves daemons behind", "fills the disk",
    "endless", "kills its parent", "links instead of results",
)  # fmt: skip


@pytest.fixture(scope="module")
def provider(tmp_path_factory) -> small.Provider:
    """A provider whose code calls ``attack.py`` once it finds itself in a verifier's hands."""
    made = small.make_provider(tmp_path_factory.mktemp("hostile") / "provider", seeds=())
    shutil.rmtree(made.root / "runs")
    script = made.repository / "train.py"
    text = script.read_text()
    for old, new in (
        ("    lines = []\n", "    import attack\n\n    elsewhere = out.name == 'run'\n    if elsewhere:\n        attack.before(out)\n    lines = []\n"),
        ("\n\nif __name__", "\n    if elsewhere:\n        attack.after(out)\n\n\nif __name__"),
    ):  # fmt: skip
        assert text.count(old) == 1
        text = text.replace(old, new)
    script.write_text(text)
    with (made.repository / "evaluate.py").open("a") as file:
        file.write("import attack\nattack.scoring(pathlib.Path(results))\n")
    (made.repository / "attack.py").write_text(QUIET)
    made.commit_all()
    for seed in small.SEEDS:
        made.train(seed)
    return made


class Verifier:
    """Where somebody repeats the training: a home with a key in it, and what is to stay as it is."""

    def __init__(self, root: Path, original: small.Provider) -> None:
        shutil.copytree(original.root, root / "provider")
        self.provider = small.Provider(root / "provider", commit=original.commit)
        self.home = root / "home"
        self.temporary = root / "tmp"
        self.temporary.mkdir()
        (self.home / ".ssh").mkdir(parents=True)
        (self.home / ".ssh/id_ed25519").write_text(CANARY)
        (self.home / ".ssh/id_ed25519").chmod(0o644)
        for folder in (root, self.home, self.home / ".ssh"):
            folder.chmod(0o755)

    def commit(self, attack: Attack, **places: object) -> None:
        """Let the provider's code be ``attack``, as if it had been trained with that."""
        provider = self.provider
        before = provider.commit
        text = attack.source(
            home=str(self.home), root=str(provider.root), canary_head=CANARY[:7], **places
        )
        (provider.repository / "attack.py").write_text(text)
        provider.commit_all()
        for file in provider.root.glob("runs/*/params.json"):
            file.write_text(file.read_text().replace(before, provider.commit))
        done = provider.build()
        assert done.returncode == 0, done.stderr

    def outside(self) -> dict[str, str]:
        folders = (self.home, self.provider.root / "bundle", self.provider.root / "keys")
        return {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest() + oct(path.stat().st_mode)
            for folder in folders
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    def verify(self, *options: object) -> tuple[int, dict, str]:
        """The exit code, the report, and everything that a person or a machine gets to read."""
        root = self.provider.root
        done = small.command(
            "verify-bundle", root / "bundle", "--trust", root / "keys/trust.pem", "--report", root / "report.json",
            "--state", root / "state", "--rerun", "--parallel", 1, *options,
        )  # fmt: skip
        text = (root / "report.json").read_text()
        return done.returncode, json.loads(text), text + done.stdout + done.stderr

    def alive(self) -> list[str]:
        """Processes of the training: each has the commit in its command."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes()
            except OSError:
                continue
            if self.provider.commit.encode() in words:
                found.append(words.decode(errors="replace"))
        return found


@pytest.fixture
def verifier(provider, tmp_path, monkeypatch) -> Verifier:
    made = Verifier(tmp_path, provider)
    monkeypatch.setenv("HOME", str(made.home))
    monkeypatch.setenv("TMPDIR", str(made.temporary))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    return made


def withstands(verifier: Verifier, attack: Attack, *options: object) -> dict:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        _listening("\0" + CANARY[:6] + str(os.getpid())) as abstract,
    ):
        server.settimeout(0)
        verifier.commit(
            attack, port=server.getsockname()[1], abstract=abstract.getsockname()[1:].decode(), verifier=os.getpid(),
            marker=verifier.provider.commit,
        )  # fmt: skip
        before = verifier.outside()
        code, report, shown = verifier.verify(*options, *attack.options)
        with pytest.raises(BlockingIOError):
            server.accept()
    found = small.codes(report)
    assert "REACHED" not in shown, [line for line in shown.splitlines() if "REACHED" in line][-1][
        -300:
    ]
    if attack.finding:
        assert attack.finding in found, (found, shown)
        assert attack.says in found[attack.finding]["message"]
    if attack.finding is None and attack.exit_code == 0:
        assert report["judgement"]["verdict"] == "BITWISE", shown
    assert code == attack.exit_code if attack.exit_code >= 0 else code in {0, 6}
    assert CANARY not in shown
    assert not {"\x1b", "\x07", "\u202e"} & {*shown}
    assert verifier.alive() == []
    assert list(verifier.temporary.iterdir()) == []
    assert not (verifier.provider.root / "state").exists()
    assert verifier.outside() == before
    return report


def _listening(name: str) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(name)
    server.listen()
    return server


@pytest.mark.parametrize("name", ATTACKS)
def test_the_verifier_stands(name, verifier):
    withstands(verifier, ATTACKS[name], "--sandbox", "bubblewrap", "--runs", 0)


@pytest.mark.parametrize("name", FOR_SANDLOCK)
def test_the_verifier_stands_with_the_weaker_sandbox_too(name, verifier):
    try:
        find("sandlock")
    except SandboxUnavailableError as error:
        pytest.skip(str(error))
    withstands(verifier, ATTACKS[name], "--sandbox", "sandlock", "--runs", 0)


def test_code_that_attacks_for_the_verifier_s_seeds_only(verifier):
    """The declared seed comes out as declared; what the others did is said, seed by seed."""
    attack = Attack(
        before="""
if "--seed=42" not in sys.argv:
    print("\\x1b[2J", flush=True)
    os.killpg(0, signal.SIGKILL)
""",
        finding="rerun-trials-lost",
        says="2 of 2 trainings with the verifier's seeds gave no result",
    )
    report = withstands(verifier, attack, "--sandbox", "bubblewrap", "--seeds", "11,12")
    assert report["judgement"]["verdict"] == "BITWISE"
    assert "rerun-inconclusive" in small.codes(report)
