"""Results that survive a kill at any moment, and nothing that was not stored."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bundler.engines.retries import KEEPER_KILLED, Lost, settled
from bundler.engines.store import Results, Session, default_folder, key
from bundler.errors import OutputError, UsageError
from bundler.trials import Point
from tests.unit.engines.conftest import a_trial
from tests.unit.engines.works import a_result

BUNDLE = "ab" * 32
KEY = key(BUNDLE, a_trial(), {"mode": "current"})
RICH = a_result(
    detail="naïve \udcff name",
    points=(Point(metric="loss", step=1, timestamp=0, value="NaN"),),
    isolation={"kind": "bubblewrap", "probes": ("network: blocked",)},
    attempts=2,
)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "state"


def test_a_result_comes_back_as_it_was_stored_and_says_that_it_did(folder):
    with Results(folder) as results:
        results.put(KEY, RICH)
    with Results(folder) as results:
        # A name that is no Unicode cannot be JSON; it is the one thing that changes.
        assert results.get(KEY) == replace(RICH, detail="naïve ? name", resumed=True)


@pytest.mark.parametrize("seed", [7, 8])
@pytest.mark.parametrize("is_declared", [True, False])
def test_whatever_is_taken_over_says_so(folder, seed, is_declared):
    """Also the result of the declared seed, which is compared, and one that says of itself that it is new."""
    name = key(BUNDLE, a_trial(seed, compare=is_declared, histories=is_declared), {})
    with Results(folder) as results:
        results.put(name, a_result(seed, resumed=False))
    for _ in range(2):
        with Results(folder) as results:
            taken = results.get(name)
            assert taken == a_result(seed, resumed=True)
            results.put(name, taken)


def test_the_folder_is_this_user_s_alone(folder):
    with Results(folder / "deep") as results:
        results.put(KEY, RICH)
        assert results.folder.stat().st_mode & 0o777 == 0o700
        assert (results.folder / f"{KEY}.json").stat().st_mode & 0o777 == 0o600


def test_the_name_of_a_result_depends_on_all_that_decides_it(monkeypatch):
    facts = {"mode": "current"}
    others = {
        key("cd" * 32, a_trial(), facts),
        key(BUNDLE, a_trial(8), facts),
        key(BUNDLE, a_trial(environment={"OMP_NUM_THREADS": "1"}), facts),
        key(BUNDLE, a_trial(), {"mode": "locked"}),
    }
    monkeypatch.setattr("bundler.__version__", "9.9.9")
    others.add(key(BUNDLE, a_trial(), facts))
    assert len(others) == 5
    assert KEY not in others


@pytest.mark.parametrize(
    "result",
    [
        a_result(ended="could not start"),
        a_result(ended="killed", detail=KEEPER_KILLED),
        settled(a_trial(), Lost(reason="node died"), 3),
    ],
)
def test_a_failure_of_infrastructure_is_not_stored(folder, result):
    with Results(folder) as results:
        results.put(KEY, result)
        assert results.get(KEY) is None


def test_a_failed_training_is_stored(folder):
    with Results(folder) as results:
        results.put(KEY, a_result(exit_code=1))
        assert results.get(KEY) == a_result(exit_code=1, resumed=True)


def damages(path):
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        yield whole[:size]
    for at in range(0, len(whole), 11):
        yield whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    yield whole + b"x"


def test_a_damaged_file_counts_as_absent(folder):
    with Results(folder) as results:
        results.put(KEY, RICH)
        path = folder / f"{KEY}.json"
        for damaged in list(damages(path)):
            path.write_bytes(damaged)
            assert results.get(KEY) is None


def test_a_foreign_file_counts_as_absent(folder, tmp_path):
    other = key(BUNDLE, a_trial(8), {})
    with Results(folder) as results:
        results.put(KEY, RICH)
        (folder / f"{KEY}.json").rename(folder / f"{other}.json")
        assert results.get(other) is None  # stored under another name
        (tmp_path / "elsewhere").write_bytes((folder / f"{other}.json").read_bytes())
        (folder / f"{KEY}.json").symlink_to(tmp_path / "elsewhere")
        assert results.get(KEY) is None
        (folder / f"{KEY}.json").unlink()
        os.mkfifo(folder / f"{KEY}.json")
        assert results.get(KEY) is None
        (folder / f"{KEY}.json").unlink()
        (folder / f"{KEY}.json").mkdir()
        assert results.get(KEY) is None


def test_a_folder_that_others_may_write_to_is_refused(folder):
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(UsageError, match="open to others") as caught, Results(folder):
        pass
    assert "--state" in caught.value.remedy


def test_a_folder_that_is_a_link_is_refused_and_nothing_is_put_behind_it(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is a link") as caught, Results(folder):
        pass
    assert "--state" in caught.value.remedy
    assert list((tmp_path / "elsewhere").iterdir()) == []
    (tmp_path / "elsewhere").rmdir()  # nor is it made, where the link leads nowhere
    with pytest.raises(UsageError, match="is a link"), Results(folder):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_below_a_link_is_used(folder, tmp_path):
    """As a home folder on another disk is."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "disk")
    with Results(tmp_path / "home/state") as results:
        results.put(KEY, RICH)
    assert (tmp_path / "disk/state" / f"{KEY}.json").exists()


def test_folders_above_that_are_made_are_this_user_s_alone_and_others_keep_their_mode(tmp_path):
    there = tmp_path / "cache"
    there.mkdir()
    there.chmod(0o755)
    mask = os.umask(0o022)
    try:
        with Results(there / "a/b/state"):
            pass
    finally:
        os.umask(mask)
    modes = [(there / each).stat().st_mode & 0o777 for each in ("", "a", "a/b", "a/b/state")]
    assert modes == [0o755, 0o700, 0o700, 0o700]


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot keep results"), Results(tmp_path / "file/below"):
        pass


def test_a_result_that_cannot_be_written_is_a_clear_error(folder):
    with Results(folder) as results:
        (folder / f"{KEY}.json").mkdir()
        with pytest.raises(OutputError, match="cannot keep results"):
            results.put(KEY, RICH)


def test_seeds_are_chosen_once(folder):
    first, second = Session(nonce="a", seeds=(1, 2)), Session(nonce="b", seeds=(3,))
    with Results(folder) as results:
        assert results.session(lambda: first) == first
    with Results(folder) as results:
        assert results.session(lambda: second) == first
        results.finish()
    with Results(folder) as results:
        assert results.session(lambda: second) == second


def test_after_a_completed_verification_nothing_is_left(folder):
    with Results(folder) as results:
        results.put(KEY, RICH)
        results.session(lambda: Session(nonce="a", seeds=(1,)))
        results.finish()
        results.put(
            KEY, RICH
        )  # of a training that was still running: a later verification must not find it
    assert not folder.exists()


def test_what_somebody_else_has_in_the_folder_stays(folder):
    folder.mkdir(mode=0o700)
    (folder / "thesis.txt").write_text("mine")
    with Results(folder) as results:
        results.put(KEY, RICH)
        results.finish()
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_two_verifications_in_one_folder_are_refused(folder):
    with Results(folder):
        with pytest.raises(UsageError, match="another verification is at work") as caught:
            Results(folder).__enter__()
        assert "--state" in caught.value.remedy
    with Results(folder):  # and the first gives it back
        pass


def test_a_lock_that_is_removed_while_one_waits_for_it_is_not_believed(folder, monkeypatch):
    import fcntl

    flock, calls = fcntl.flock, []

    def removed_meanwhile(lock, how):
        calls.append(how)
        if len(calls) == 1:
            (folder / "lock").unlink()
        if len(calls) == 2:
            (folder / "lock").unlink()
            folder.rmdir()
        flock(lock, how)

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with Results(folder):
        assert len(calls) >= 3
        assert (folder / "lock").exists()


def test_the_default_folder_is_below_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder(BUNDLE) == tmp_path / "aisdp-bundler/reruns" / BUNDLE
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # ignored, as the XDG specification says
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder(BUNDLE) == tmp_path / ".cache/aisdp-bundler/reruns" / BUNDLE


VERIFICATION = """
import os, signal, sys
from pathlib import Path
from bundler.engines import store
from tests.unit.engines.conftest import a_trial
from tests.unit.engines.works import a_result

folder, journal, moment = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
calls = 0

def dying(call):
    def counted(*arguments, **options):
        global calls
        calls += 1
        if calls == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return counted

def say(word, seed):
    with open(journal, "a") as file:
        file.write(f"{word} {seed}\\n")

with store.Results(folder) as results:
    # From here on each step of writing is a moment to die at.
    for name in ("open", "fsync", "replace", "fdopen", "close"):
        setattr(os, name, dying(getattr(os, name)))
    chosen = results.session(lambda: store.Session(nonce=os.urandom(8).hex(), seeds=(11, 12, 13)))
    say("nonce", chosen.nonce)
    for seed in chosen.seeds:
        name = store.key("ab" * 32, a_trial(seed), {})
        if results.get(name) is None:
            say("trained", seed)
            results.put(name, a_result(seed, detail="x" * 5000))
            say("stored", seed)
        else:
            assert results.get(name) == a_result(seed, detail="x" * 5000, resumed=True)
            say("taken", seed)
    print("complete")
"""


def test_a_verification_that_is_killed_at_each_of_its_steps_loses_and_repeats_nothing(tmp_path):
    """A real process and a real SIGKILL before each system call of a write, one start after the other."""
    folder, journal = tmp_path / "state", tmp_path / "journal"
    journal.touch()
    deaths = 0
    for moment in range(1, 200):
        ended = subprocess.run(
            [sys.executable, "-c", VERIFICATION, str(folder), str(journal), str(moment)],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        deaths += 1
        if deaths % 9 == 0:  # start over, to die at the later moments from an empty folder as well
            assert_nothing_lost(journal)
            with Results(folder) as results:
                results.finish()
            journal.write_text("")
    assert deaths > 15
    assert_nothing_lost(journal)
    assert "complete" in ended.stdout


def assert_nothing_lost(journal):
    words = [tuple(line.split()) for line in journal.read_text().splitlines()]
    stored = set()
    for word, seed in words:
        assert not (word == "trained" and seed in stored), "a finished training was run again"
        stored |= {seed} if word in ("stored", "taken") else set()
    nonces = {nonce for word, nonce in words if word == "nonce"}
    assert len(nonces) <= 1, "a resumed verification chose its seeds anew"
