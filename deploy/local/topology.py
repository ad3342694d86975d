"""The hosted topology as plain processes on loopback: PostgreSQL, an embedded BondMCP, replicas, and nginx with the
configuration of ../nginx. Everything is in a temporary directory, and every process ends with `Topology.close`."""

import os
import pathlib
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
NGINX = HERE.parent / "nginx"
# PostgreSQL refuses to run as root.
NOBODY = 65534
# Longest wait for a process to be ready, in seconds.
PATIENCE = 60


class Topology:
    def __init__(self, binary, replicas=2, log="info"):
        self.binary, self.log = str(pathlib.Path(binary).resolve()), log
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="bondmcp-", dir="/tmp"))
        # Others may pass, as PostgreSQL's user must, but not look.
        self.directory.chmod(0o711)
        self.processes, self.files, self.keeps = {}, [], False
        ports = free_ports(replicas * 2 + 3)
        self.port, self.postgres_port, self.sandbox_port, *ports = ports
        self.public_url = f"http://localhost:{self.port}"
        self.base_url = f"http://127.0.0.1:{self.sandbox_port}/mcp"
        self.addresses = [f"127.0.0.1:{port}" for port in ports[:replicas]]
        self.metrics = [f"127.0.0.1:{port}" for port in ports[replicas:]]
        self.password = secrets.token_hex(16)

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def start(self):
        key = self.directory / "sealing.key"
        private(key, secrets.token_hex(32))
        self.create_postgres()
        self.start_sandbox()
        # One after the other: the first one creates the tables.
        for index in range(len(self.addresses)):
            self.start_replica(index)
            self.wait_for_replica(index)
        self.start_nginx()

    def start_sandbox(self):
        flags = ["--listen", f"127.0.0.1:{self.sandbox_port}", "--state-file", self.directory / "accounts.json"]
        self.spawn("sandbox", [self.binary, "sandbox", *flags])
        self.wait("sandbox", f"{self.base_url}/health")

    # PostgreSQL

    def create_postgres(self):
        home = self.directory / "postgres"
        home.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(home, NOBODY, NOBODY)
        self.programs = postgres_programs()
        self.postgres("initdb", "-U", "postgres", "-E", "UTF8", "--no-locale", "--no-sync", "--auth-local=trust",
                      "--auth-host=scram-sha-256")
        settings = f"""
            listen_addresses = '127.0.0.1'
            port = {self.postgres_port}
            unix_socket_directories = '{home}'
            max_connections = 100
            log_statement = 'all'
            log_parameter_max_length = -1
        """
        configuration = home / "data/postgresql.auto.conf"
        configuration.write_text(re.sub(r"^ +", "", settings, flags=re.M))
        self.start_postgres()
        # PostgreSQL logs its statements, so that the logs can be searched for secrets; this one is ours.
        self.psql("postgres", "SET log_statement = none", f"CREATE ROLE bondmcp LOGIN PASSWORD '{self.password}'")
        self.psql("postgres", "CREATE DATABASE bondmcp OWNER bondmcp")

    def start_postgres(self):
        self.postgres("pg_ctl", "start", "-w", "-s", "-l", str(self.directory / "postgres/log"))

    def stop_postgres(self, mode="fast"):
        self.postgres("pg_ctl", "stop", "-w", "-s", "-m", mode)

    def psql(self, database, *statements):
        home = self.directory / "postgres"
        command = [self.programs / "psql", "-h", home, "-p", str(self.postgres_port), "-U", "postgres", "-At"]
        words = [word for statement in statements for word in ("-c", statement)]
        done = subprocess.run([*command, *words, database], capture_output=True, text=True, timeout=PATIENCE, **unprivileged())
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def postgres(self, program, *arguments):
        home = self.directory / "postgres"
        command = [self.programs / program, *arguments, "-D", home / "data"]
        # pg_ctl's server would keep a pipe open.
        with open(self.directory / f"{program}.log", "ab") as log:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=home, timeout=PATIENCE,
                                  env={"PATH": os.environ["PATH"], "LC_ALL": "C"}, **unprivileged())
        assert done.returncode == 0, (self.directory / f"{program}.log").read_text()

    # Replicas

    def replica(self, *arguments):
        """A command of the program with the settings of all replicas."""
        return [self.binary, "--base-url", self.base_url, "--log", self.log, "--log-format", "json", *arguments]

    def environment(self, data):
        vault = f"postgres://bondmcp:{self.password}@127.0.0.1:{self.postgres_port}/bondmcp"
        return {"PATH": os.environ["PATH"], "HOME": str(self.directory), "BONDMCP_VAULT": vault,
                "BONDMCP_SEALING_KEY_FILE": str(self.directory / "sealing.key"),
                "BONDMCP_DATA_DIR": str(self.directory / data)}

    def start_replica(self, index):
        # nginx is the proxy that says the address of the client.
        flags = ["--listen", self.addresses[index], "--public-url", self.public_url, "--trusted-proxy", "127.0.0.1/32",
                 "--metrics-listen", self.metrics[index], "--drain-delay", "0"]
        name = f"replica-{index + 1}"
        self.spawn(name, self.replica("http", *flags), self.environment(name))

    def wait_for_replica(self, index):
        self.wait(f"replica-{index + 1}", f"http://{self.addresses[index]}/readyz")

    def kill_replica(self, index):
        """Ends a replica at once, as a crash would."""
        process = self.processes.pop(f"replica-{index + 1}")
        process.kill()
        process.wait()

    def run(self, *arguments):
        """Runs a command of the program on the vault of the replicas; returns what it printed."""
        done = subprocess.run(self.replica(*arguments), env=self.environment("operator"), capture_output=True, text=True,
                              timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        return done.stdout

    # nginx

    def start_nginx(self):
        home = self.directory / "nginx"
        home.mkdir()
        if os.geteuid() == 0:
            os.chown(home, NOBODY, NOBODY)
        servers = "".join(f"server {address}; " for address in self.addresses)
        temporary = "".join(f"{kind}_temp_path {home}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        configuration = home / "nginx.conf"
        configuration.write_text(f"""
            daemon off;
            pid {home}/pid;
            error_log {home}/error.log crit;
            events {{ worker_connections 2048; }}
            http {{
                {temporary}
                include {NGINX}/http.conf;
                upstream bondmcp {{ zone bondmcp 64k; {servers} keepalive 32; keepalive_timeout 20s; }}
                upstream bondmcp_mcp {{
                    zone bondmcp_mcp 64k; hash $http_authorization consistent; {servers} keepalive 32; keepalive_timeout 20s;
                }}
                server {{
                    listen 127.0.0.1:{self.port} backlog=1024;
                    access_log {home}/access.log bondmcp;
                    include {NGINX}/locations.conf;
                }}
            }}
        """)
        nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        assert nginx, "nginx is not installed"
        self.spawn("nginx", [nginx, "-e", f"{home}/error.log", "-p", home, "-c", configuration], **unprivileged())
        self.wait("nginx", f"http://127.0.0.1:{self.port}/healthz")

    # Processes

    def spawn(self, name, command, environment=None, **more):
        log = open(self.directory / f"{name}.log", "ab")
        self.files.append(log)
        environment = environment or {"PATH": os.environ["PATH"], "HOME": str(self.directory)}
        # Not of our process group: an interrupt from the terminal is ours to handle.
        self.processes[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                                                start_new_session=True, **more)

    def wait(self, name, url):
        until = time.monotonic() + PATIENCE
        while True:
            process = self.processes[name]
            assert process.poll() is None, f"{name} ended: {self.told(name)}"
            try:
                with urllib.request.urlopen(url, timeout=5):
                    return
            except OSError:
                assert time.monotonic() < until, f"{name} is not ready: {self.told(name)}"
                time.sleep(0.05)

    def told(self, name):
        return (self.directory / f"{name}.log").read_text(errors="replace")[-4000:]

    def logs(self):
        """Everything that any process wrote into a log, by the file's name."""
        # The state of PostgreSQL and of the sandbox is no log.
        files = [*self.directory.glob("*.log"), *self.directory.glob("nginx/*.log"), self.directory / "postgres/log",
                 *self.directory.glob("*/audit.jsonl")]
        return {str(file.relative_to(self.directory)): file.read_text(errors="replace") for file in files if file.exists()}

    def close(self):
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if (self.directory / "postgres/data/postmaster.pid").exists():
            self.stop_postgres("immediate")
        for file in self.files:
            file.close()
        if not self.keeps:
            shutil.rmtree(self.directory, ignore_errors=True)


def private(path, text):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def unprivileged():
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


def postgres_programs():
    """The directory of initdb and pg_ctl: Debian's newest, or that in PATH."""
    versions = pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb")
    found = sorted(versions, key=lambda program: int(program.parent.parent.name))
    program = found[-1] if found else shutil.which("initdb")
    assert program, "PostgreSQL is not installed"
    return pathlib.Path(program).parent


def free_ports(count):
    """Ports below those that systems give to outgoing connections, so that they stay free while a process restarts."""
    ports = []
    while len(ports) < count:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


def end_on_signals():
    """Lets a signal end the program by an exception, so that `close` runs."""
    def end(number, _):
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
