#!/usr/bin/env bash
# Starts the registry, the router and both instances, and waits until the router has both.
#
#   ./start-master.sh                 on this machine only
#   ./start-master.sh 172.22.162.18   at this address of this machine, for others too
#   BACKEND=vllm MODEL1_DIR=/models/9g_8b_thinking_llama ./start-master.sh
#
# Logs and process ids are in run.d/ (RUN_DIR); ./stop-master.sh stops all of them.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=install.defaults.sh
. "$(dirname "$0")/install.defaults.sh"
need
case $BACKEND in
mock) ;;
vllm)
	[ -n "$MODEL1_DIR" ] || die "BACKEND=vllm: MODEL1_DIR must name the model's folder"
	command -v vllm >/dev/null || die "BACKEND=vllm: the program vllm is needed: pip install vllm"
	;;
*) die "BACKEND: found '$BACKEND', expected mock or vllm" ;;
esac
mkdir -p "$RUN_DIR"
if compgen -G "$RUN_DIR/*.pid" >/dev/null; then
	die "$RUN_DIR has process ids: ./stop-master.sh first"
fi
export PDCTL

# start NAME COMMAND...: in the background, with its log and its process id.
start() {
	local name=$1
	shift
	"$@" </dev/null >"$RUN_DIR/$name.log" 2>&1 &
	echo $! >"$RUN_DIR/$name.pid"
}

undo() {
	tail -n 5 "$RUN_DIR"/*.log >&2
	RUN_DIR=$RUN_DIR "$CASE_DIR/stop-master.sh" >&2
}
trap '[ $? -eq 0 ] || undo' EXIT

start registry "$PDCTL" registry --host "$REGISTRY_IP" --port "$REGISTRY_PORT"
until_true "the registry on port $REGISTRY_PORT" 30 healthy "$registry"
# The key is the session: what ROUTER_POLICY does with requests that have none is to take turns between idle instances.
# shellcheck disable=SC2086 # ROUTER_FLAGS is a list of words
start router "$PDCTL" serve --host "$REGISTRY_IP" --port "$ROUTER_PORT" --admin-port "$ADMIN_PORT" --registry-url "$registry" \
	--registry-sync-interval 0.5 --policy "$ROUTER_POLICY" $ROUTER_FLAGS
for instance in "$MASTER:$MASTER_PORT" "$SLAVE:$SLAVE_PORT"; do
	start "${instance%:*}" "$CASE_DIR/babysitter" "$CASE_DIR/config/${instance%:*}.toml" --host "$REGISTRY_IP" --port "${instance#*:}" \
		--registry-url "$registry" --backend "$BACKEND" --model-dir "$MODEL1_DIR"
done
until_true "the router on port $ROUTER_PORT" 30 healthy "$router"
until_true "both instances at the router" "$START_TIMEOUT" has_instances 2
until_true "the router to be ready" 60 curl -sf --max-time 5 "$router/readiness"
echo "registry $registry"
echo "router   $router"
echo "$MASTER http://$REGISTRY_IP:$MASTER_PORT, health on $((MASTER_PORT + 1))"
echo "$SLAVE http://$REGISTRY_IP:$SLAVE_PORT, health on $((SLAVE_PORT + 1))"
[ "$BACKEND" = vllm ] || echo "the instances are simulated: every latency is one of pdctl worker"
