# Sourced by the scripts beside it: a virtual environment in .venv with sslcli in it, made once and renewed when what it
# is made from changes. Usage: environment EXTRAS   ("" or "[test]"); afterwards $python is its interpreter.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

environment() {
  local extras=$1 base=${PYTHON:-python3}
  if ! "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "error: python3 of at least 3.11 is needed ($("$base" --version 2>&1 || echo none found))" >&2
    echo >&2
    echo "hint: PYTHON=/path/to/python3.11 $0" >&2
    exit 3
  fi
  python=$PWD/.venv/bin/python
  local stamp=.venv/.installed wanted
  wanted=$(cat pyproject.toml constraints.txt | cksum)
  if [ -x "$python" ] && [ -f "$stamp" ] && grep -qxF "$wanted $extras" "$stamp"; then return; fi
  echo "installing sslcli$extras into .venv (torch is large: some minutes the first time)" >&2
  [ -x "$python" ] || "$base" -m venv .venv || {
    echo "hint: on Debian and Ubuntu, apt install python3-venv" >&2
    exit 3
  }
  local began=$SECONDS
  "$python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".$extras" >&2
  echo "$wanted $extras" >>"$stamp"
  echo "installed in $((SECONDS - began)) s" >&2
}
