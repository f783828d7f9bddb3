"""Make the experiment store: baseline, random search, selection and repeated seeds.

    python search.py --fresh

Starts a local MLflow server on mlflow.db and mlartifacts/ and runs `python train.py ...` against
it, each training in a process of its own. Everything that was tried is in the store afterwards,
the failed run and the deleted one included.
"""

import argparse
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import mlflow

HERE = Path(__file__).resolve().parent
DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
EXPERIMENT = "credit-scoring"

SEARCH_SPACE = {
    "hidden-size": [8, 16, 32, 64],
    "layers": [1, 2, 3],
    "dropout": [0.0, 0.1, 0.2, 0.3, 0.5],
    "lr": [3e-4, 5e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2],
    "weight-decay": [0.0, 1e-4, 1e-3, 1e-2, 1e-1],
    "batch-size": [16, 32, 64, 128],
}
CANDIDATES = 32
SEARCH_SEED = 2024  # draws the candidates
TRAINING_SEED = 42  # of the baseline and of every candidate
REPEAT_SEEDS = [1, 2, 3, 4, 5]

# The selection: the best validation AUC among the candidates that treat applicants of 25 or less
# and older ones alike enough. The hold-out plays no part in it.
OBJECTIVE = "best_val_auc"
CONSTRAINT = "metrics.best_val_disparity_age <= 0.20"


def draw_candidates():
    """Random search without repetition."""
    rng = random.Random(SEARCH_SEED)
    candidates = []
    while len(candidates) < CANDIDATES:
        candidate = {name: rng.choice(values) for name, values in SEARCH_SPACE.items()}
        if candidate not in candidates:
            candidates.append(candidate)
    return candidates


def train(tracking_uri, name, options, expect_failure=False):
    """Run train.py with these options, in this folder and with a relative path."""
    arguments = [f"--{option}={value}" for option, value in options.items()]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": tracking_uri,
        # MLflow records who started a run: a role, not the account of whoever runs this file.
        "LOGNAME": "credit-scoring-team",
        "USER": "credit-scoring-team",
    }
    result = subprocess.run(
        [sys.executable, "train.py", f"--run-name={name}", *arguments],
        cwd=HERE,
        env=environment,
        capture_output=True,
        text=True,
    )
    if expect_failure:
        if result.returncode == 0 or "FloatingPointError" not in result.stderr:
            raise RuntimeError(f"{name} was expected to diverge\n{result.stderr}")
        outcome = "diverged, as expected"
    else:
        if result.returncode != 0:
            raise RuntimeError(f"{name} failed\n{result.stderr}")
        outcome = result.stdout.splitlines()[-1]  # after the links that MLflow prints
    print(f"{name:14} {' '.join(arguments)}\n{'':14} {outcome}", flush=True)


@contextmanager
def tracking_server():
    """A local MLflow server that hands out artefacts itself: no path of this machine is stored."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{DATABASE}"),
        *("--artifacts-destination", f"./{ARTIFACTS}", "--serve-artifacts"),
    ]
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    uri = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        command, cwd=HERE, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            for _ in range(120):
                try:
                    urllib.request.urlopen(f"{uri}/health", timeout=1).close()
                    break
                except OSError:
                    if server.poll() is not None:
                        raise RuntimeError("the MLflow server did not start") from None
                    time.sleep(0.5)
            else:
                raise RuntimeError("the MLflow server does not answer")
            yield uri
        finally:
            server.terminate()


def runs_of(client, experiment, query="", order_by=None):
    return client.search_runs(
        [experiment.experiment_id], query, max_results=1000, order_by=order_by
    )


def select(client, experiment):
    query = f"tags.stage = 'search' AND attributes.status = 'FINISHED' AND {CONSTRAINT}"
    order = [f"metrics.{OBJECTIVE} DESC", "attributes.start_time ASC"]
    return runs_of(client, experiment, query, order)[0]


def compact_database():
    """One plain file, without a write-ahead log and without free pages."""
    connection = sqlite3.connect(HERE / DATABASE)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("VACUUM")
    connection.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fresh", action="store_true", help="replace an existing store")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    args = parser.parse_args()

    if (HERE / DATABASE).exists() or (HERE / ARTIFACTS).exists():
        if not args.fresh:
            sys.exit(f"{DATABASE} or {ARTIFACTS}/ exists already; --fresh replaces both")
        for suffix in ("", "-wal", "-shm", "-journal"):
            (HERE / f"{DATABASE}{suffix}").unlink(missing_ok=True)
        shutil.rmtree(HERE / ARTIFACTS, ignore_errors=True)

    with tracking_server() as uri:
        client = mlflow.MlflowClient(uri)
        client.create_experiment(EXPERIMENT)
        experiment = client.get_experiment_by_name(EXPERIMENT)

        # Does everything work? Two epochs say so, and nothing about a model: the run is removed
        # from the comparison right away. MLflow keeps deleted runs, marked as such.
        train(
            uri,
            "smoke-test",
            {"epochs": 2, "seed": TRAINING_SEED, "note": "Smoke test of two epochs, to be deleted"},
        )
        (smoke_test,) = runs_of(client, experiment)
        client.delete_run(smoke_test.info.run_id)

        train(
            uri,
            "baseline",
            {
                "model": "logistic",
                "lr": 0.003,
                "seed": TRAINING_SEED,
                "stage": "baseline",
                "note": "Logistic regression: what a network has to beat",
            },
        )

        # Momentum SGD was the first idea; at this learning rate it diverges. The run stays.
        train(
            uri,
            "sgd-lr-2",
            {
                "optimizer": "sgd",
                "lr": 2.0,
                "seed": TRAINING_SEED,
                "note": "Does momentum SGD with a very large learning rate get there sooner?",
            },
            expect_failure=True,
        )

        with ThreadPoolExecutor(args.jobs) as pool:
            trainings = [
                pool.submit(train, uri, f"candidate-{n:02}", {**candidate, "seed": TRAINING_SEED})
                for n, candidate in enumerate(draw_candidates(), start=1)
            ]
            for training in trainings:
                training.result()

        selected = select(client, experiment)
        options = {name: selected.data.params[name.replace("-", "_")] for name in SEARCH_SPACE}
        note = f"The configuration of {selected.info.run_name} with another seed"
        for seed in REPEAT_SEEDS:
            train(
                uri,
                f"repeat-seed-{seed}",
                {**options, "seed": seed, "stage": "repeat", "note": note},
            )

    compact_database()
    print(
        f"selected: {selected.info.run_name} ({selected.info.run_id}), "
        f"{OBJECTIVE} {selected.data.metrics[OBJECTIVE]:.4f}"
    )


if __name__ == "__main__":
    main()
