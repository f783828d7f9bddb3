"""Programs, options and variables that :mod:`bundler.launching` knows when it follows a training command."""

from __future__ import annotations

import re

MAX_DEPTH = 20
ODD = re.compile(r"[{}$*?\[\]\0]")
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
PYTHON = re.compile(r"\{python\}|(/usr/bin/|/bin/)?python(\d+(\.\d+)*)?")
SHELLS = frozenset({"sh", "bash", "dash", "zsh"})
INTERPRETERS = frozenset({"Rscript", "node", "julia", "perl", "ruby"})
SCRIPT_LAUNCHERS = frozenset({"torchrun", "deepspeed", "accelerate-launch", "composer"})
SUB_COMMANDS = {"accelerate": "launch", "fabric": "run", "lightning": "run", "colossalai": "run"}
PROGRAM_LAUNCHERS = frozenset({
    *("mpirun", "mpiexec", "srun", "horovodrun"),
    *("env", "nice", "timeout", "nohup", "numactl", "taskset"),
})  # fmt: skip
LAUNCHING_MODULES = {"accelerate.commands.launch", "deepspeed.launcher.runner"}
TORCHRUN_FLAGS = {
    *("--standalone", "-m", "--module", "--no-python", "--run-path", "--virtual-local-rank", "--use-env"),
}  # fmt: skip
TORCHRUN_VALUES = {
    *("--nnodes", "--nproc-per-node", "--node-rank", "--rdzv-backend", "--rdzv-endpoint", "--rdzv-id", "--rdzv-conf"),
    *("--max-restarts", "--monitor-interval", "--start-method", "--role", "--log-dir", "-r", "--redirects", "-t"),
    *("--tee", "--local-ranks-filter", "--duplicate-stdout-filters", "--duplicate-stderr-filters", "--master-addr"),
    *("--master-port", "--local-addr", "--numa-binding", "--signals-to-handle", "--shutdown-timeout"),
}  # fmt: skip
"""Those of torch 2.13 but for --logs-specs and --event-log-handler, which load code by a name."""
PAIRS = {"-mca", "--mca", "-gmca", "--gmca", "-genv", "-env"}
"""Options of MPI's launchers with two values."""
FLAGS = {
    *("--standalone", "--no-python", "--no_python", "--run-path", "--module", "-m", "--multi_gpu", "--multi-gpu"),
    *("--cpu", "--tpu", "--mps", "--debug", "--use_deepspeed", "--use_fsdp", "--quiet", "-q", "--oversubscribe"),
    *("--allow-run-as-root", "--exclusive", "--overcommit", "--foreground", "--preserve-status", "--verbose", "-v"),
    *("-i", "--ignore-environment"),
}  # fmt: skip
VALUE = re.compile(
    r"--?(config[\w-]*|log[-_]dir|np?|nnodes|nproc[-_]per[-_]node|num[-_]\w+|hostfile)"
)
"""Options of launchers whose next word is surely a value, even if it looks like a file."""
PLAIN_OPTION = re.compile(
    r"--(vanilla|no-[a-z-]+|slave|quiet|project(=(\.|@\.))?|threads=\w+|max-old-space-size=\d+)"
)
PUNCTUATION = "();<>|&\n"
KNOWN_OUTPUT = re.compile(r"\$\((nproc|pwd|date( [+%\w-]+)?)\)")
PREFIXES = {"exec", "command", "time", "if", "then", "else", "elif", "while", "do", "!", "{"}
HARMLESS_COMMANDS = {
    *("", "true", "false", ":", "set", "unset", "exit", "echo", "printf", "test", "[", "mkdir", "date", "ls", "pwd"),
    *("sleep", "wait", "ulimit", "umask", "cat", "fi", "done", "}", "nvidia-smi"),
}  # fmt: skip
DATA = {
    *(".log", ".txt", ".out", ".err", ".csv", ".tsv", ".json", ".jsonl", ".parquet", ".npy", ".npz", ".h5"),
}  # fmt: skip
HARMLESS = {
    f"PYTHON{name}"
    for name in (
        *("HASHSEED", "UNBUFFERED", "DONTWRITEBYTECODE", "FAULTHANDLER", "UTF8", "IOENCODING"),
        *("OPTIMIZE", "NOUSERSITE", "SAFEPATH", "DEVMODE", "TRACEMALLOC", "MALLOC", "VERBOSE"),
    )
}
SEARCH_PATHS = {"PYTHONPATH", "NODE_PATH", "R_LIBS", "PERL5LIB", "RUBYLIB", "JULIA_LOAD_PATH"}
LOADS = re.compile(
    r"PYTHON\w+|(LD|DYLD|R|NODE|JULIA|LUA|GEM)_\w+|(PERL|RUBY)\w+|BASH_ENV|ENV|PATH|CDPATH|ZDOTDIR|IFS|GCONV_PATH"
    r"|SHELLOPTS|BASHOPTS|PS4|BROWSER|CLASSPATH|\w*JAVA\w*_OPTIONS"
    r"|PET_(NO_PYTHON|MODULE|RUN_PATH|LOGS_SPECS|EVENT_LOG_HANDLER)"
)
"""Variables that decide which code an interpreter, a shell or the loader takes."""
