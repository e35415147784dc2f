# Sourced by test.sh: real servers for the tests, each in a folder of its own that git ignores.
#   GFM_SWIFT     OpenStack Swift, an S3 server (default: .venv-swift in the project folder)
#   GFM_AZURITE   Azurite, an Azure Blob server, where Node.js is there (default: .azurite)
# What cannot be had is said, with the reason; the tests then use moto for S3 and leave Azure out.

# prepare_servers: install what is missing, in the background. Call await_servers before the tests.
prepare_servers() {
    export GFM_SWIFT=${GFM_SWIFT:-$PROJECT/.venv-swift} GFM_AZURITE=${GFM_AZURITE:-$PROJECT/.azurite}
    SERVER_LOG=$(mktemp -d)
    prepare_swift >"$SERVER_LOG/swift" 2>&1 & SWIFT_JOB=$!
    prepare_azurite >"$SERVER_LOG/azurite" 2>&1 & AZURITE_JOB=$!
}

prepare_swift() {
    [ -x "$GFM_SWIFT/bin/swift-proxy-server" ] && return
    "${PYTHON:-python3}" -m venv "$GFM_SWIFT" &&
        timeout 300 "$GFM_SWIFT/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check 'swift>=2.33'
}

prepare_azurite() {
    [ -x "$GFM_AZURITE/node_modules/.bin/azurite-blob" ] && return
    command -v node >/dev/null && command -v npm >/dev/null || { echo "found no node and npm"; return 1; }
    mkdir -p "$GFM_AZURITE" &&
        timeout 300 npm install --prefix "$GFM_AZURITE" --silent --no-audit --no-fund --no-save azurite@3
}

await_servers() {
    wait "$SWIFT_JOB" || printf '\nno Swift, S3 tests run against moto: %s\n' "$(tail -n 1 "$SERVER_LOG/swift")"
    wait "$AZURITE_JOB" || printf '\nno Azurite, its tests are skipped: %s\n' "$(tail -n 1 "$SERVER_LOG/azurite")"
    rm -rf "$SERVER_LOG"
}
