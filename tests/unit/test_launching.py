"""What a training command starts: commands that run committed code, and commands that only look like it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.launching import problems

FILES = ["train.py", "run.sh", "train.R", "pkg/__init__.py", "pkg/train.py", "app/__main__.py", "src/lib/train.py"]  # fmt: skip


def codes(command, environment=None, **more):
    return [code for code, _ in problems(command, environment or {}, FILES, **more)]


def sh(text):
    return ["sh", "-c", text]


@pytest.mark.parametrize(
    "command",
    [
        ["{python}", "train.py", "{input.data}", "{parameter.rate}", "{out}/store"],
        ["{python}", "./train.py"],
        ["{python}", "{code}/train.py"],
        ["{python}", "-u", "train.py"],
        ["{python}", "-W", "ignore", "train.py"],
        ["{python}", "-Wignore", "train.py"],
        ["{python}", "-W", "ignore::UserWarning", "train.py"],
        ["{python}", "-X", "dev", "train.py"],
        ["{python}", "-Xdev", "-uB", "train.py"],
        ["{python}", "-uW", "ignore", "train.py"],
        ["{python}", "--check-hash-based-pycs", "always", "train.py"],
        ["{python}", "-I", "train.py", "-c", "x"],
        ["{python}", "app"],
        ["{python}", "-m", "app"],
        ["{python}", "-mtrain"],
        ["{python}", "-um", "pkg.train"],
        ["{python}", "-m", "pkg.train"],
        ["python3", "train.py"],
        ["python3.11", "train.py"],
        ["/usr/bin/python3", "train.py"],
        ["{python}", "-m", "torch.distributed.run", "--nproc-per-node=2", "train.py"],
        ["{python}", "-m", "torch.distributed.launch", "--nproc_per_node", "2", "train.py"],
        ["{python}", "-m", "accelerate.commands.launch", "train.py"],
        ["torchrun", "train.py"],
        ["torchrun", "--standalone", "--nproc-per-node", "2", "train.py", "{input.data}"],
        ["torchrun", "-m", "--log-dir", "{out}/log", "pkg.train"],
        [
            "torchrun",
            "--nnodes",
            "1",
            "--rdzv-backend",
            "c10d",
            "--rdzv-endpoint",
            "localhost.localdomain:0",
            "train.py",
        ],
        [
            "torchrun",
            "--master_addr",
            "node.example.org",
            "--master-port=29500",
            "-r",
            "3",
            "-t3",
            "train.py",
            "--role",
            "x",
        ],
        ["torchrun", "--no-python", "{python}", "train.py"],
        ["torchrun", "--no_python", "./run.sh"],
        [
            "{python}",
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            "gpu",
            "--module",
            "pkg.train",
        ],
        [
            "{python}",
            "-m",
            "torch.distributed.launch",
            "--use_env",
            "--nproc_per_node=2",
            "train.py",
        ],
        [
            "{python}",
            "-m",
            "accelerate.commands.accelerate_cli",
            "launch",
            "--num_processes",
            "2",
            "train.py",
        ],
        ["accelerate-launch", "--mixed_precision", "no", "train.py"],
        ["fabric", "run", "--devices", "2", "--strategy", "ddp", "train.py"],
        ["lightning", "run", "model", "--devices=2", "train.py"],
        ["colossalai", "run", "--nproc_per_node", "2", "train.py"],
        ["composer", "-n", "2", "train.py"],
        ["horovodrun", "-np", "2", "-H", "localhost:2", "{python}", "train.py"],
        [
            "mpirun",
            "--mca",
            "btl",
            "self,tcp",
            "-np",
            "2",
            "taskset",
            "-c",
            "0,1",
            "{python}",
            "train.py",
        ],
        ["srun", "--ntasks", "2", "torchrun", "--nnodes", "2", "train.py"],
        ["numactl", "--cpunodebind=0", "{python}", "train.py"],
        ["accelerate", "launch", "--config", "c.yaml", "train.py"],
        ["accelerate", "launch", "--config_file", "{input.config}", "-m", "pkg.train"],
        ["deepspeed", "--num_gpus", "{parameter.gpus}", "train.py"],
        ["mpirun", "-np", "2", "{python}", "train.py"],
        ["mpirun", "-n", "1", "{python}", "train.py", ":", "-n", "2", "{python}", "train.py"],
        ["srun", "-n", "2", "--exclusive", "{code}/run.sh"],
        ["env", "-u", "HOME", "SEED=1", "{python}", "train.py"],
        ["nice", "-n", "5", "timeout", "90m", "{python}", "train.py"],
        ["timeout", "-s", "KILL", "10", "bash", "run.sh"],
        ["bash", "run.sh"],
        ["bash", "-euo", "pipefail", "run.sh", "{input.data}"],
        ["bash", "--norc", "--", "run.sh"],
        ["./run.sh"],
        ["{code}/train.py"],
        ["Rscript", "--vanilla", "train.R"],
        sh('cd {out} && exec {python} "{code}/train.py"'),
        sh("cd {out} && exec {python} {code}/train.py --seed={seed}"),
        sh("cd {out} && mkdir -p store; {python} {code}/train.py; true"),
        sh("{python} train.py; true"),
        sh("cd {code} && {python} -m train"),
        sh("cd pkg && {python} train.py"),
        sh("set -e\nexport A=1\nB=2 {python} \\\n train.py 2>&1 | tee {out}/log.txt"),
        sh("{python} train.py > {out}/log 2> /dev/null"),
        sh("cp {input.data} data.csv && torchrun --nproc-per-node $(nproc) train.py"),
        sh("PYTHONPATH={code}/src {python} -m lib.train"),
        sh("export PYTHONPATH={code}/src; exec {python} -m lib.train"),
        sh("if true; then bash run.sh; fi"),
        sh("{python} train.py --rate {parameter.rate}"),
        sh("source ./run.sh"),
        ["bash", "-lc", "time {python} train.py"],
        ["bash", "-c", "-e", "{python} train.py"],
    ],
)
def test_a_command_that_starts_a_file_of_the_code_is_no_problem(command):
    assert codes(command, parameters={"rate": 0.1}) == []


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["{python}"],
        ["{python}", "-"],
        ["{python}", "-V", "train.py"],
        ["{python}", "--help", "train.py"],
        ["{python}", "-c", "print(1)"],
        ["{python}", "-cprint(1)", "train.py"],
        ["{python}", "-uc", "print(1)", "train.py"],
        ["{python}", "-Wignore", "-c", "print(1)", "train.py"],
        ["{python}", "{input.script}", "train.py"],
        ["{python}", "{input.script}", "-m", "train"],
        ["{python}", "{parameter.script}", "train.py"],
        ["{python}", "{out}/train.py"],
        ["{python}", "{code}/../datasets/data/train.py"],
        ["{python}", "/bundle/data/datasets/data/train.py"],
        ["{python}", "pkg"],
        ["{python}", "-m", "{parameter.module}", "train.py"],
        ["torchrun", "--role", "train.py", "evil.py"],
        ["torchrun", "--log-dir", "train.py", "evil.py"],
        ["torchrun", "--stand", "{input.script}", "train.py"],
        ["torchrun", "--rol", "x", "train.py"],
        ["torchrun", "--standalone=1", "train.py"],
        ["torchrun", "--logs-specs", "evil", "train.py"],
        ["torchrun", "--standalone"],
        ["torchrun", "--no-python", "evil", "train.py"],
        ["torchrun", "-m", "train.py"],
        ["torchrun", "{python}", "train.py"],
        ["{python}", "-m", "torch.distributed.run", "--standalone", "elsewhere.py"],
        ["{python}", "-m", "accelerate.commands.accelerate_cli", "config", "train.py"],
        ["accelerate", "launch", "--config_file", "train.py", "evil.py"],
        ["mpirun", "-mca", "a", "{python}", "evil.py", "train.py"],
        ["fabric", "train.py"],
        ["{python}", "-m", "runpy", "train.py"],
        ["{python}", "-m"],
        ["{python}", "-Pm", "train"],
        ["python3", "{input.script}", "train.py"],
        ["python3.11", "-c", "1", "train.py"],
        ["{input.program}", "train.py"],
        ["train.py"],
        ["cat", "train.py"],
        ["A=1", "{python}", "train.py"],
        ["bash", "{input.script}", "train.py"],
        ["bash", "--rcfile", "{input.script}", "run.sh"],
        ["bash", "-s"],
        ["bash", "-c"],
        ["torchrun", "{input.script}", "train.py"],
        ["torchrun", "--standalone", "{input.script}", "train.py"],
        ["torchrun", "--no-python", "{input.script}", "train.py"],
        ["torchrun", "-m", "{input.script}", "pkg.train"],
        ["torchrun", "other.py", "train.py"],
        ["torchrun"],
        ["accelerate", "test", "train.py"],
        ["{python}", "-m", "torch.distributed.run", "{input.script}", "train.py"],
        ["mpirun", "-n", "1", "{python}", "train.py", ":", "{input.program}"],
        ["env", "-S", "{python} {input.script}", "train.py"],
        ["env", "{python}", "{input.script}", "train.py"],
        ["timeout", "10", "{input.program}", "train.py"],
        ["Rscript", "-e", "1", "train.R"],
        ["node", "{input.script}", "train.R"],
        ["perl", "--quiet"],
        ["nice"] * 40 + ["{python}", "train.py"],
        sh("{python} {input.script} train.py"),
        sh("cd {out} && {python} train.py"),
        sh("cd {out}; (cd {code}); {python} train.py"),
        sh("cd {out}; {python} -m train"),
        sh("cd; {python} train.py"),
        sh("{python} train.py; {python} {input.script}"),
        sh("{python} train.py\n{python} {input.script}"),
        sh("cat {input.script} | {python}; {python} train.py"),
        sh("cp {input.script} train.py; {python} train.py"),
        sh("cat {input.script} > other.py; {python} train.py"),
        sh("cat {input.script} | tee train.py; {python} train.py"),
        sh("{python} train.py $({python} {input.script})"),
        sh("{python} train.py `id`"),
        sh("{python} train.py <<X"),
        sh('true "#"; {input.script}; {python} train.py'),
        sh("true # {python} train.py"),
        sh("eval {input.script}; {python} train.py"),
        sh("trap {input.script} EXIT; {python} train.py"),
        sh(". {input.script}; {python} train.py"),
        sh("$SCRIPT; {python} train.py"),
        sh("echo train.py"),
        sh("A=1"),
        sh("'"),
        sh("{python} train.py --rate {parameter.bad}"),
    ],
)
def test_a_command_that_may_start_something_else_is_a_problem(command):
    assert codes(command, parameters={"bad": "1; id"}) == ["training-command-elsewhere"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MLFLOW_TRACKING_URI", "file://{out}/mlruns"),
        ("DATA", "{input.data}"),
        ("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
        ("PYTHONHASHSEED", "0"),
        ("PYTHONUNBUFFERED", "1"),
        ("PYTHONPATH", "{code}"),
        ("PYTHONPATH", "{code}/src:{code}/lib"),
        ("PYTHONPATH", "src:."),
        ("PYTHONWARNINGS", "ignore,error::UserWarning"),
        ("HOME", "{out}/home"),
    ],
)
def test_a_variable_that_brings_no_code_is_no_problem(name, value):
    assert codes(["{python}", "train.py"], {name: value}) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PYTHONPATH", "/bundle/data/datasets"),
        ("PYTHONPATH", "{code}:{out}"),
        ("PYTHONPATH", "{code}/../datasets"),
        ("PYTHONPATH", ".."),
        ("PYTHONPYCACHEPREFIX", "{input.data}"),
        ("PYTHONWARNINGS", "all:0:antigravity.x:0:0"),
        ("PYTHONSTARTUP", "x"),
        ("PYTHONHOME", "x"),
        ("R_PROFILE", "{input.data}"),
        ("NODE_OPTIONS", "--require={input.data}"),
        ("NODE_PATH", "/x"),
        ("JULIA_LOAD_PATH", "/x"),
        ("PERL5OPT", "-Mx"),
        ("RUBYOPT", "-rx"),
        ("LD_PRELOAD", "{input.data}"),
        ("BASH_ENV", "{input.data}"),
        ("ENV", "x"),
        ("PATH", "/x"),
        ("PET_NO_PYTHON", "1"),
        ("HOME", "/bundle/data/datasets"),
    ],
)
@pytest.mark.parametrize("place", ["environment", "env", "shell", "export"])
def test_a_variable_that_can_bring_in_other_code_is_a_problem_wherever_it_is_set(
    name, value, place
):
    command, environment = {
        "environment": (["{python}", "train.py"], {name: value}),
        "env": (["env", f"{name}={value}", "{python}", "train.py"], {}),
        "shell": (sh(f"{name}='{value}' {{python}} train.py"), {}),
        "export": (sh(f"export {name}='{value}'; {{python}} train.py"), {}),
    }[place]
    assert codes(command, environment) == ["training-code-elsewhere"]


@pytest.mark.parametrize(
    "option", [["-X", "pycache_prefix={input.x}"], ["-Wall:0:antigravity.x"], ["-Xpresite=x"]]
)
def test_an_option_of_python_that_brings_in_other_code_is_a_problem(option):
    assert codes(["{python}", *option, "train.py"]) == ["training-code-elsewhere"]


def test_a_module_of_a_source_layout_is_found_through_the_python_path():
    command = ["{python}", "-m", "lib.train"]
    assert codes(command, {"PYTHONPATH": "{code}/src"}) == []
    assert codes(command) == ["training-command-elsewhere"]
    assert codes(["{python}", "-E", *command[1:]], {"PYTHONPATH": "{code}/src"}) != []
    assert codes(["{python}", "-m", "train"], {"PYTHONSAFEPATH": "1"}) != []


def test_a_relative_python_path_is_a_problem_once_the_folder_changes():
    assert codes(sh("cd {out}; {python} {code}/train.py"), {"PYTHONPATH": "."}) == [
        "training-code-elsewhere"
    ]


_WORDS = st.sampled_from(
    [
        *(
            "{python}",
            "sh",
            "bash",
            "env",
            "nice",
            "torchrun",
            "mpirun",
            "-c",
            "-m",
            "-W",
            "-X",
            "-",
        ),
        *(
            "train.py",
            "pkg.train",
            "{input.x}",
            ";",
            "&&",
            ">",
            "cd",
            "{out}",
            "A=1",
            ":",
            "'",
            "#",
        ),
    ]
)


@given(st.lists(_WORDS | st.text(max_size=8), max_size=8), st.booleans())
def test_no_command_makes_the_reader_fail(words, shell):
    assert len(codes(sh(" ".join(words)) if shell else words)) <= 2 + len(words)
