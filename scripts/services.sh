#!/usr/bin/env bash
# The servers that tests run against. The tests start and end
# them by themselves where their programs are installed; this installs what is
# missing, or starts containers, or says what to do. test.sh sources it.
#
#   scripts/services.sh            installs what is missing and says what there is
#   scripts/services.sh control CONTAINER VERB   for the tests, see internal/servers
set -euo pipefail

services=(redis mariadb postgresql memcached nats rabbitmq)
services_missing=()    # after prepare_services: those that cannot be had
services_containers=() # those that start_container has started

# about NAME WHAT prints a service's Debian packages, its programs, the variable
# that names one that runs, an example of its value, the container's image and
# port, or the service that Debian would start.
about() {
	case $1.$2 in
	redis.packages) echo redis-server ;;
	redis.programs) echo redis-server ;;
	redis.variable) echo OWTP_TEST_REDIS ;;
	redis.example) echo 'redis://:PASSWORD@127.0.0.1:6379/0' ;;
	redis.image) echo redis:7.4 ;;
	redis.port) echo 6379 ;;
	redis.units) echo redis-server ;;
	mariadb.packages) echo mariadb-server ;;
	mariadb.programs) echo mariadbd mariadb-install-db ;;
	mariadb.variable) echo OWTP_TEST_MYSQL ;;
	mariadb.example) echo 'root:PASSWORD@tcp(127.0.0.1:3306)/owtp' ;;
	mariadb.image) echo mariadb:11.4 ;;
	mariadb.port) echo 3306 ;;
	mariadb.units) echo mariadb ;;
	postgresql.packages) echo postgresql ;;
	postgresql.programs) echo postgres initdb ;;
	postgresql.variable) echo OWTP_TEST_POSTGRES ;;
	postgresql.example) echo 'postgres://owtp:PASSWORD@127.0.0.1:5432/owtp?sslmode=disable' ;;
	postgresql.image) echo postgres:17 ;;
	postgresql.port) echo 5432 ;;
	postgresql.units) echo postgresql ;;
	memcached.packages) echo memcached ;;
	memcached.programs) echo memcached ;;
	memcached.variable) echo OWTP_TEST_MEMCACHED ;;
	memcached.example) echo 127.0.0.1:11211 ;;
	memcached.image) echo memcached:1.6 ;;
	memcached.port) echo 11211 ;;
	memcached.units) echo memcached ;;
	nats.packages) echo nats-server ;;
	nats.programs) echo nats-server ;;
	nats.variable) echo OWTP_TEST_NATS ;;
	nats.example) echo 'nats://owtp:PASSWORD@127.0.0.1:4222' ;;
	nats.image) echo nats:2.12-alpine ;;
	nats.port) echo 4222 ;;
	nats.units) echo nats-server ;;
	rabbitmq.packages) echo rabbitmq-server ;;
	rabbitmq.programs) echo rabbitmq-server rabbitmqctl epmd ;;
	rabbitmq.variable) echo OWTP_TEST_RABBITMQ ;;
	rabbitmq.example) echo 'amqp://owtp:PASSWORD@127.0.0.1:5672/' ;;
	rabbitmq.image) echo rabbitmq:3.13 ;;
	rabbitmq.port) echo 5672 ;;
	rabbitmq.units) echo rabbitmq-server ;;
	*) return 1 ;;
	esac
}

# installed PROGRAM: where internal/servers looks too.
installed() {
	command -v "$1" >/dev/null ||
		compgen -G "/usr/sbin/$1" >/dev/null || compgen -G "/usr/local/sbin/$1" >/dev/null || compgen -G "/usr/local/bin/$1" >/dev/null ||
		compgen -G "/usr/lib/postgresql/*/bin/$1" >/dev/null || compgen -G "/usr/pgsql-*/bin/$1" >/dev/null
}

# has_service NAME: a variable names one, or the tests can start it.
has_service() {
	local variable program
	variable=$(about "$1" variable)
	[[ -z ${!variable:-} ]] || return 0
	for program in $(about "$1" programs); do
		installed "$program" || return 1
	done
}

# absent prints the services that there are not.
absent() {
	local name
	for name in "${services[@]}"; do
		has_service "$name" || echo "$name"
	done
}

# as_root COMMAND...: without asking anybody for a password.
as_root() {
	if ((EUID == 0)); then "$@"; else sudo -n "$@"; fi
}

can_install() {
	command -v apt-get >/dev/null && [[ -e /etc/debian_version ]] && as_root true 2>/dev/null
}

# apt_install PACKAGE...: the lists of packages are fetched if they are missing
# or old.
apt_install() {
	local -a apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300)
	as_root "${apt[@]}" install --no-install-recommends "$@" >/dev/null 2>&1 && return
	as_root "${apt[@]}" update >/dev/null && as_root "${apt[@]}" install --no-install-recommends "$@" >/dev/null
}

# install_services NAME...: Debian starts the servers that it installs, now and at
# every boot. These are for tests alone: nothing is to run that did not before.
install_services() (
	local name policy=/usr/sbin/policy-rc.d rc=0
	local -a packages=() units=()
	for name in "$@"; do
		read -ra names <<<"$(about "$name" packages)"
		packages+=("${names[@]}")
		read -ra names <<<"$(about "$name" units)"
		units+=("${names[@]}")
	done
	if [[ ! -e $policy ]]; then
		trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
		printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
		as_root chmod 755 "$policy"
	fi
	printf 'installing %s\n' "${packages[*]}"
	apt_install "${packages[@]}" || rc=$?
	# Where a policy stood already, it may have let them start.
	for name in "${units[@]}"; do
		if [[ -d /run/systemd/system ]]; then
			as_root systemctl --quiet disable --now "$name" 2>/dev/null || true
		elif [[ -x /etc/init.d/$name ]] && as_root service "$name" status >/dev/null 2>&1; then
			as_root service "$name" stop >/dev/null 2>&1 || true
		fi
	done
	return "$rc"
)

# container_ready CONTAINER waits until the server inside answers. The databases'
# images run a server without network first.
container_ready() {
	local container=$1 name
	name=$(docker inspect -f '{{index .Config.Labels "owtp.service"}}' "$container")
	for _ in {1..240}; do
		case $name in
		redis) docker exec "$container" sh -c "redis-cli --no-auth-warning -a \"\$PASSWORD\" ping | grep -q PONG" ;;
		mariadb) docker exec "$container" healthcheck.sh --connect --innodb_initialized ;;
		postgresql) docker exec "$container" pg_isready -q -h 127.0.0.1 -U owtp ;;
		memcached) docker exec "$container" sh -c 'kill -0 1' && sleep 1 ;;
		nats) docker exec "$container" wget -q -O /dev/null http://127.0.0.1:8222/healthz ;;
		rabbitmq) docker exec "$container" rabbitmq-diagnostics -q check_port_connectivity ;;
		esac >/dev/null 2>&1 && return
		sleep 0.5
	done
	printf 'the container %s does not answer within two minutes; docker logs %s\n' "$container" "$container" >&2
	return 1
}

# control_container CONTAINER VERB does what a test asks for.
control_container() {
	case $2 in
	pause) docker pause "$1" ;;
	resume) docker unpause "$1" ;;
	kill) docker kill "$1" ;;
	stop) docker stop -t 15 "$1" ;;
	start) docker start "$1" && container_ready "$1" ;;
	ctl) docker exec "$1" rabbitmqctl -q "${@:3}" >&3 ;;
	*)
		printf 'pause, resume, kill, stop, start or ctl, not %q\n' "$2" >&2
		return 1
		;;
	esac 3>&1 >/dev/null
}

# start_container NAME starts a container and exports the variables that name it.
# Its port stays the same when a test stops and starts it.
start_container() {
	local name=$1 container="owtp-test-$1-$$" variable port dsn
	local -a options=() command=()
	PASSWORD=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
	export PASSWORD
	# Passwords go through the environment: arguments are seen by everybody.
	case $name in
	redis) options=(-e PASSWORD) command=(sh -c "exec redis-server --requirepass \"\$PASSWORD\" --appendonly yes") ;;
	mariadb)
		export MARIADB_ROOT_PASSWORD=$PASSWORD
		options=(-e MARIADB_ROOT_PASSWORD -e MARIADB_DATABASE=owtp)
		;;
	postgresql)
		export POSTGRES_PASSWORD=$PASSWORD
		options=(-e POSTGRES_PASSWORD -e POSTGRES_USER=owtp)
		;;
	nats)
		options=(-e PASSWORD)
		# shellcheck disable=SC2016 # it is the container's shell that knows the password
		command=(sh -c 'printf "authorization { user: owtp, password: \"%s\" }\njetstream { store_dir: /data }\n" "$PASSWORD" >/tmp/conf &&
			exec nats-server -c /tmp/conf -m 8222')
		;;
	rabbitmq)
		export RABBITMQ_DEFAULT_PASS=$PASSWORD
		options=(-e RABBITMQ_DEFAULT_PASS -e RABBITMQ_DEFAULT_USER=owtp)
		;;
	esac
	for _ in 1 2 3; do
		port=$((10000 + RANDOM % 20000))
		docker run -d --name "$container" --label "owtp.service=$name" -p "127.0.0.1:$port:$(about "$name" port)" \
			"${options[@]}" "$(about "$name" image)" "${command[@]}" >/dev/null && break
		docker rm -f -v "$container" >/dev/null 2>&1 || true
		port=
	done
	[[ -n $port ]] || return
	services_containers+=("$container")
	container_ready "$container" || return
	case $name in
	redis) dsn="redis://:$PASSWORD@127.0.0.1:$port/0" ;;
	mariadb) dsn="root:$PASSWORD@tcp(127.0.0.1:$port)/owtp" ;;
	postgresql) dsn="postgres://owtp:$PASSWORD@127.0.0.1:$port/owtp?sslmode=disable" ;;
	memcached) dsn="127.0.0.1:$port" ;;
	nats) dsn="nats://owtp:$PASSWORD@127.0.0.1:$port" ;;
	rabbitmq) dsn="amqp://owtp:$PASSWORD@127.0.0.1:$port/" ;;
	esac
	variable=$(about "$name" variable)
	export "$variable=$dsn"
	export "${variable}_CONTROL=$(printf %q "$PWD/scripts/services.sh") control $container"
	printf '%s: started the container %s\n' "$name" "$container"
}

# prepare_services makes the services available in one way or another, and lists
# in services_missing those that are not.
prepare_services() {
	local name
	local -a wanted
	mapfile -t wanted < <(absent)
	if ((${#wanted[@]} > 0)) && can_install; then
		install_services "${wanted[@]}" || echo "apt-get could not install everything"
		mapfile -t wanted < <(absent)
	fi
	if ((${#wanted[@]} > 0)) && command -v docker >/dev/null && timeout 20 docker info >/dev/null 2>&1; then
		for name in "${wanted[@]}"; do
			start_container "$name" || echo "docker could not start $name"
		done
	fi
	mapfile -t services_missing < <(absent)
	for name in "${services[@]}"; do
		if ! has_service "$name"; then
			printf '%s: NOT AVAILABLE. Install it (Debian: apt-get install %s), or start one and set %s=%s\n' \
				"$name" "$(about "$name" packages)" "$(about "$name" variable)" "$(about "$name" example)"
		else
			printf '%s: available\n' "$name"
		fi
	done
}

# check_services: nothing may be missing in CI, where nobody would notice.
check_services() {
	if ((${#services_missing[@]} > 0)) && [[ -n ${CI:-} ]]; then
		printf 'missing, and CI is set: %s\n' "${services_missing[*]}" >&2
		return 1
	fi
}

# stop_services ends what prepare_services has started. The tests end their own.
stop_services() {
	local container
	for container in "${services_containers[@]}"; do
		docker rm -f -v "$container" >/dev/null 2>&1 || printf 'could not remove the container %s\n' "$container" >&2
	done
	services_containers=()
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
	case ${1:-} in
	control) control_container "${@:2}" ;;
	"")
		cd "$(dirname "$0")/.."
		trap stop_services EXIT
		prepare_services
		check_services
		;;
	*)
		sed -nE 's/^# ?//p' "$0" | head -6 >&2
		exit 2
		;;
	esac
fi
