# Sourced by quickstart.sh and test.sh: a virtual environment with this project installed in it.
#   GFM_VENV    where it is made (default: .venv in the project folder)
#   PYTHON      the interpreter to make it with (default: python3)

fail() { printf 'error: %s\n' "$*" >&2; exit 2; }

# Print a command, then run it.
step() { printf '\n$ %s\n' "$*"; "$@"; }

# is_current STAMP: whether an installation was finished and the requirements are the same since.
is_current() { [ -f "$1" ] && [ ! "$PROJECT/setup.cfg" -nt "$1" ]; }

# prepare_environment EXTRA: make the environment if needed, install the project with [EXTRA] ("train" or "test", which
# includes it).
prepare_environment() {
    local extra=$1 python=${PYTHON:-python3} target stamp
    VENV=${GFM_VENV:-$PROJECT/.venv}
    command -v "$python" >/dev/null || fail "found no $python; install it: sudo apt install python3 python3-venv python3-dev"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        fail "$("$python" --version) is too old, Python 3.10 or newer is needed; set PYTHON=/path/to/python3"
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$python cannot make virtual environments; install it: sudo apt install python3-venv"
    command -v g++ >/dev/null ||
        fail "found no g++, which DeepSpeed needs to compile an operator at its first start; install it: sudo apt install g++"
    [ -f "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] ||
        fail "found no Python.h, which DeepSpeed needs to compile an operator; install it: sudo apt install python3-dev"
    target="$PROJECT[$extra]"
    stamp="$VENV/.installed-$extra"
    if [ ! -x "$VENV/bin/python" ]; then
        step "$python" -m venv "$VENV"
    fi
    # Installed once, and again whenever the requirements have changed since.
    if ! is_current "$stamp" && ! is_current "$VENV/.installed-test"; then
        # Of tens of thousands of modules Python compiles those that it imports, once.
        step "$VENV/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check --editable "$target"
        touch "$stamp"
    fi
    unset PYTHONDONTWRITEBYTECODE  # or every process would compile them anew
    export PATH="$VENV/bin:$PATH"
}
