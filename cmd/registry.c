/* pdctl registry: where services register, with InfiniLM-SVC's HTTP API. */
#include <curl/curl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "lib/base/cli.h"
#include "lib/base/clock.h"
#include "lib/discovery/registry.h"

static struct registry_config cfg;
static int64_t port;
static const char *host, *log_level, *log_format;

static const struct opt opts[] = {
	{.type = OPT_HEADING, .help = "where"},
	{OPT_TEXT, "host", &host, "ADDR", "address to listen on (default: 127.0.0.1)", NULL, 0, 0,
	 NULL},
	{OPT_INT, "port", &port, "N", "port; 0 takes a free one and prints it (default: 8081)",
	 NULL, 0, 65535, NULL},
	{OPT_TEXT, "file", &cfg.file, "FILE",
	 "keep the services in this SQLite file over restarts (default: in memory only)", NULL, 0,
	 0, NULL},
	{.type = OPT_HEADING, .help = "services"},
	{OPT_REAL, "healthy-secs", &cfg.healthy_s, "S",
	 "a service is healthy this long after its last heartbeat (default: 120)", NULL, 0.1, 1e6,
	 NULL},
	{OPT_REAL, "removal-secs", &cfg.removal_s, "S",
	 "it is removed this long after its last heartbeat (default: 300)", NULL, 0.1, 1e6, NULL},
	{OPT_REAL, "health-interval", &cfg.health_interval_s, "S",
	 "ask all services for /health so often; 0: never (default: 30)", NULL, 0, 1e6, NULL},
	{OPT_REAL, "health-timeout", &cfg.health_timeout_s, "S",
	 "time for an answer to that (default: 5)", NULL, 0.01, 600, NULL},
	{OPT_REAL, "cleanup-interval", &cfg.cleanup_s, "S",
	 "look for services to remove so often (default: 60)", NULL, 0.05, 1e6, NULL},
	{.type = OPT_HEADING, .help = "process"},
	{OPT_CHOICE, "log-level", &log_level, "LEVEL",
	 "debug, info, warn, error or off (default: info)",
	 "debug|info|warn|warning|error|critical|off", 0, 0, NULL},
	{OPT_CHOICE, "log-format", &log_format, "FORM", "text or json (default: text)", "text|json",
	 0, 0, NULL},
	{.type = OPT_END},
};

static const struct opt_command command = {
	.name = "registry",
	.usage = "pdctl registry [options]",
	.summary = "where services register: InfiniLM-SVC's registry, durable",
	.about = "Services register with POST /services, send heartbeats, and are listed by GET "
		 "/services. `pdctl serve\n"
		 "--registry-url` takes its workers from there. Nothing is authenticated: whoever "
		 "reaches the port can\n"
		 "register, so keep it inside.",
	.examples = "  $ pdctl registry --port 18000 --file registry.db\n"
		    "      prints: pdctl registry listening on http://127.0.0.1:18000\n"
		    "  $ curl http://127.0.0.1:18000/services?healthy=true\n"
		    "      what can be used now",
	.opts = opts,
};

static void on_request(void *ctx, struct http_conn *c, struct http_request *r)
{
	registry_request(ctx, c, r);
}

/* Serves until SIGTERM or SIGINT. */
static int serve(const sigset_t *stop, struct log *log)
{
	struct http_server *server = NULL;
	struct registry *r = NULL;
	struct http_server_config sc;
	struct pd_msg msg = {0};
	char line[300];
	int sig, n;

	cfg.log = log;
	switch (registry_start(&r, &cfg, &msg)) {
	case PD_OK:
		break;
	case PD_EINVAL:
		return cli_usage_error(&command, &msg);
	default:
		return cli_runtime_error(&command, &msg);
	}
	http_server_config_default(&sc);
	sc.host = host;
	sc.port = (uint16_t)port;
	sc.io = HTTP_IO_THREADS; /* a handler may wait for a service */
	sc.max_body = REGISTRY_BODY_MAX;
	sc.log = log;
	sc.ctx = r;
	sc.on_request = on_request;
	if (http_server_start(&server, &sc, &msg)) {
		registry_stop(r);
		return cli_runtime_error(&command, &msg);
	}
	n = snprintf(line, sizeof(line), "pdctl registry listening on http://%s%s%s:%u\n",
		     strchr(host, ':') ? "[" : "", host, strchr(host, ':') ? "]" : "",
		     http_server_port(server));
	cli_print(line, (size_t)n);
	(void)fflush(stdout);
	(void)sigwait(stop, &sig);
	http_server_drain(server);
	(void)http_server_wait(server, clock_now() + 2 * NS_PER_S);
	if (http_server_free(server))
		registry_stop(r);
	return EXIT_OK;
}

int cmd_registry(int argc, char **argv)
{
	enum log_level level = LOG_INFO;
	struct log *log;
	sigset_t stop;
	int code;

	registry_config_default(&cfg);
	host = "127.0.0.1";
	port = 8081;
	log_level = "info";
	log_format = "text";
	code = cli_parse(&command, argc, argv, NULL);
	if (code >= 0)
		return code;
	(void)!log_level_parse(log_level, &level); /* OPT_CHOICE let only known levels through */
	(void)sigemptyset(&stop);
	(void)sigaddset(&stop, SIGTERM);
	(void)sigaddset(&stop, SIGINT);
	(void)pthread_sigmask(SIG_BLOCK, &stop, NULL);
	(void)curl_global_init(CURL_GLOBAL_NOTHING);
	log = log_new(STDERR_FILENO, level, strcmp(log_format, "json") == 0);
	code = serve(&stop, log);
	log_free(log);
	curl_global_cleanup();
	return code;
}
