# The project's environment plus what only the model's benchmark needs, in out/benchmark-venv.
set -eu
venv=out/benchmark-venv
if [ ! -f "$venv/done" ] || [ requirements/benchmark.in -nt "$venv/done" ] || [ requirements/lock.txt -nt "$venv/done" ]; then
    rm -rf "$venv"
    .venv/bin/python -m venv "$venv"
    ours=$(cd .venv && bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    theirs=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "import site; site.addsitedir('$ours')" > "$theirs/project.pth"
    "$venv/bin/python" -m pip install --quiet --constraint requirements/lock.txt -r requirements/benchmark.in
    touch "$venv/done"
fi
