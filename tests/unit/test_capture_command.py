"""``bundler capture``: the environment of another interpreter, and the command that is run after it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bundler import canonical
from bundler.capture.interpreter import collect_from, interpreter_of
from bundler.cli import capture as command_module
from bundler.errors import OutputError, UsageError

RUN = "import sys; from bundler.cli.capture import capture; capture.main(sys.argv[1:], 'bundler capture')"


def bundler_capture(*arguments, cwd, **options):
    """The command in a process of its own: what it runs takes that process's place."""
    return subprocess.run(
        [sys.executable, "-c", RUN, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        **options,
    )


def read(path):
    return canonical.parse(path.read_bytes())


def stranger(folder, script):
    """Something that is called like an interpreter."""
    path = folder / "python3"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_help_has_examples():
    result = CliRunner().invoke(command_module.capture, ["--help"])
    assert result.exit_code == 0
    assert "bundler capture -- python train.py" in result.output
    assert "--python" in result.output


def test_without_a_command_only_the_file_is_written(tmp_path):
    done = bundler_capture("--python", sys.executable, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "wrote environment.json" in done.stderr
    value = read(tmp_path / "environment.json")
    assert value["python"] == sys.version.split()[0]
    assert value["packages"]["aisdp-bundler"]
    assert value["not_recorded"]["determinism.torch"] == "torch is not imported in this process"
    assert os.listdir(tmp_path) == ["environment.json"]


@pytest.mark.parametrize(
    ("script", "code"), [("print('trained')", 0), ("raise SystemExit(3)", 3), ("1/0", 1)]
)
def test_the_command_keeps_its_output_and_exit_code(tmp_path, script, code):
    done = bundler_capture("-o", "out/e.json", "--", sys.executable, "-c", script, cwd=tmp_path)
    assert done.returncode == code
    assert done.stdout == ("trained\n" if code == 0 else "")
    assert "command" not in read(tmp_path / "out" / "e.json")


def test_the_command_ends_with_its_signal_and_ignores_none(tmp_path):
    script = (
        "import os, signal, sys; assert not sys.stdin.read(1);"
        "ignored = open('/proc/self/status').read().split('SigIgn:')[1].split()[0];"
        "print(int(ignored, 16) >> (signal.SIGXFSZ - 1) & 1); sys.stdout.flush();"
        "os.kill(os.getpid(), signal.SIGTERM)"
    )
    done = bundler_capture(
        "--", "sh", "-c", "grep SigIgn /proc/self/status", cwd=tmp_path, stdin=subprocess.DEVNULL
    )
    ignored = int(done.stdout.split()[1], 16)
    assert not ignored >> (signal.SIGPIPE - 1) & 1
    done = bundler_capture(
        "--", sys.executable, "-c", script, cwd=tmp_path, stdin=subprocess.DEVNULL
    )
    assert done.returncode == -signal.SIGTERM


def test_options_after_the_command_are_the_commands(tmp_path):
    done = bundler_capture("--record-command", "echo", "-o", "--lr", "0.1", cwd=tmp_path)
    assert done.stdout == "-o --lr 0.1\n"
    assert read(tmp_path / "environment.json")["command"] == "echo -o --lr 0.1"


def test_a_file_that_cannot_be_written_stops_before_the_training(tmp_path):
    (tmp_path / "folder").mkdir()
    arguments = [
        "-o",
        str(tmp_path / "folder"),
        "--python",
        sys.executable,
        "touch",
        str(tmp_path / "ran"),
    ]
    result = CliRunner().invoke(command_module.capture, arguments)
    assert isinstance(result.exception, OutputError)
    assert result.exception.exit_code == 8
    assert not (tmp_path / "ran").exists()


def test_a_command_that_is_not_there(tmp_path):
    result = CliRunner().invoke(
        command_module.capture, ["-o", str(tmp_path / "e.json"), "no-such-command"]
    )
    assert isinstance(result.exception, UsageError)
    assert not (tmp_path / "e.json").exists()


def test_a_command_that_is_no_program(tmp_path):
    program = tmp_path / "program"
    program.write_bytes(b"\0")
    program.chmod(0o755)
    before = [signal.getsignal(each) for each in (signal.SIGPIPE, signal.SIGXFSZ)]
    try:
        result = CliRunner().invoke(
            command_module.capture, ["-o", str(tmp_path / "e.json"), str(program)]
        )
    finally:
        signal.signal(signal.SIGPIPE, before[0])
        signal.signal(signal.SIGXFSZ, before[1])
    assert isinstance(result.exception, UsageError)
    assert "cannot be run" in result.exception.message


def test_nothing_is_written_into_a_bundle(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bundle.json").write_text("{}")
    result = CliRunner().invoke(command_module.capture, ["-o", str(tmp_path / "e.json")])
    assert isinstance(result.exception, UsageError)


# The interpreter that is asked.


def test_the_interpreter_of_a_command(tmp_path, monkeypatch):
    mine = stranger(tmp_path, "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert interpreter_of(["python3", "train.py"]) == mine
    assert interpreter_of([sys.executable, "train.py"]) == Path(sys.executable)
    assert interpreter_of(["torchrun", "train.py"]) == mine
    assert interpreter_of([]) == mine
    mine.unlink()
    assert interpreter_of([]) == Path(sys.executable)


def test_an_interpreter_without_our_package(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    value = collect_from(tmp_path / "venv" / "bin" / "python", folder=str(tmp_path))
    assert value["packages"] == {}
    assert value["prefix"] == str(tmp_path / "venv")


@pytest.mark.parametrize("minor", range(9, 15))
def test_every_python_from_three_nine(tmp_path, minor):
    places = [
        *Path("~/.pyenv/versions").expanduser().glob(f"3.{minor}.*/bin/python"),
        Path(f"/usr/bin/python3.{minor}"),
    ]
    python = next((each for each in places if each.is_file()), None)
    if python is None:
        pytest.skip(f"no Python 3.{minor} here")
    value = collect_from(python, folder=str(tmp_path), command=["x"], identify=True)
    assert value["python"].startswith(f"3.{minor}.")
    # Importing torch sets variables of this very process.
    absent = {name for name in value["not_recorded"] if "TORCHINDUCTOR" not in name}
    assert absent <= {
        *("cuda.runtime", "cudnn", "nccl", "gpu", "determinism.torch", "threads.blas", "code"),
        *("packages", "cpu.cache", "cpu.stepping"),
    }


def test_variables_of_python_count_and_files_of_the_folder_do_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    for name in ("platform", "json", "importlib", "types", "csv"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('mine')")
    value = collect_from(Path(sys.executable))
    assert value["determinism"]["PYTHONHASHSEED"] == "0"
    assert value["determinism"]["hash_randomization"] is False
    assert not (tmp_path / "__pycache__").exists()


def test_what_an_interpreter_prints_at_its_start_does_no_harm(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit; print('hello', end='');atexit.register(print, 'bye')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert collect_from(Path(sys.executable), folder=str(tmp_path))["python"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo no good >&2; exit 1", "no good"),
        ("exit 0", "printed nothing"),
        ("echo aisdp-environment:[1]", "something else"),
        ("echo aisdp-environment:[NaN]", "NaN"),
    ],
)
def test_what_is_no_interpreter(tmp_path, script, reason):
    with pytest.raises(UsageError, match=reason) as caught:
        collect_from(stranger(tmp_path, script))
    assert "--python" in caught.value.remedy


def test_an_interpreter_that_hangs(tmp_path, monkeypatch):
    monkeypatch.setattr("bundler.capture.interpreter._SECONDS", 0.1)
    with pytest.raises(UsageError, match="did not answer"):
        collect_from(stranger(tmp_path, "exec sleep 61"))


def test_an_interpreter_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        collect_from(tmp_path / "python")


def test_an_interpreter_that_is_too_old(tmp_path):
    script = f'exec {sys.executable} -c "import sys; sys.version_info = (3, 8); sys.argv.pop(1); exec(sys.argv.pop(1))" "$@"'
    with pytest.raises(UsageError, match=r"Python 3\.9 or later is needed"):
        collect_from(
            stranger(
                tmp_path,
                script.replace("sys.argv.pop(1); exec", "sys.argv.pop(1); sys.argv.pop(1); exec"),
            )
        )


def test_the_facts_are_the_same_from_inside_and_outside(tmp_path):
    script = "import sys; from bundler.capture import capture; capture(sys.argv[1])"
    inside = tmp_path / "inside.json"
    subprocess.run([sys.executable, "-c", script, inside], check=True, cwd=tmp_path)
    outside = collect_from(Path(sys.executable), folder=str(tmp_path))
    value = json.loads(inside.read_bytes())
    assert {**value, "captured_at": ""} == {**outside, "captured_at": ""}


def test_every_name_is_documented(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "capture.md").read_text()
    value = collect_from(Path(sys.executable), folder=str(tmp_path), command=["x"], identify=True)
    for name in [*value, "gpu", "package_origins", "container", "code"]:
        assert f"`{name}" in text, name
    for name in (*value["cpu"], *value["determinism"].keys() & {"hash_randomization", "seed"}):
        assert name in text, name
