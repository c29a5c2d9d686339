/* One thread waits for signals; all others block them. */
#include "cmd/serve_run.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "cmd/notify.h"
#include "lib/base/cli.h"
#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/base/process.h"

#define STOP_MARGIN (10 * NS_PER_S) /* beyond the drain: closed streams end, memory is freed */

void serve_block_signals(sigset_t *set)
{
	(void)sigemptyset(set);
	(void)sigaddset(set, SIGTERM);
	(void)sigaddset(set, SIGINT);
	(void)sigaddset(set, SIGHUP);
	(void)sigaddset(set, SIGUSR1);
	(void)pthread_sigmask(SIG_BLOCK, set, NULL);
}

/* On the reloading thread: a slow name look-up must not delay TERM. */
static void reload_ended(void)
{
	notify("READY=1");
}

/* HUP and USR1: the process goes on. False for the signals that end it. */
static bool minor_signal(struct router *rt, const struct router_config *c, int sig, bool draining)
{
	struct pd_msg msg = {0};

	if (sig == SIGHUP && !draining) {
		notify_reloading();
		if (!router_reload_begin(rt, reload_ended)) {
			log_event(c->log, LOG_ERROR, "reload_ignored", LOG_NO_FIELDS,
				  "too many reloads pending: this one is ignored");
			reload_ended();
		}
	} else if (sig == SIGUSR1 && log_reopen(c->access_log, &msg)) {
		log_event(c->log, LOG_ERROR, "access_log_kept",
			  LOG_FIELDS(LOG_TEXT("error", msg.text)),
			  "access log: %s; still writing to the old file", msg.text);
	}
	return sig == SIGHUP || sig == SIGUSR1;
}

struct second_signal {
	const struct router_config *cfg;
	sigset_t set;
	struct router *rt;
	_Atomic bool done;
	_Atomic unsigned cut;
};

/* During a drain: the next TERM or INT closes what is left. */
static void *await_second(void *arg)
{
	struct second_signal *s = arg;
	int sig;

	do
		(void)sigwait(&s->set, &sig);
	while (!atomic_load(&s->done) && minor_signal(s->rt, s->cfg, sig, true));
	if (!atomic_load(&s->done))
		atomic_store(&s->cut, router_hurry(s->rt));
	return NULL;
}

static int drain(struct router *rt, const struct router_config *c, const sigset_t *set)
{
	struct second_signal second = {.cfg = c, .set = *set, .rt = rt};
	bool watching;
	pthread_t thread;
	unsigned cut;

	log_event(c->log, LOG_INFO, "drain_begins",
		  LOG_FIELDS(LOG_REAL("limit_s", (double)c->drain_timeout / 1e9)),
		  "draining: no new connections, up to %.0f s for streams in flight",
		  (double)c->drain_timeout / 1e9);
	watching = pthread_create(&thread, NULL, await_second, &second) == 0;
	router_drain(rt);
	cut = router_wait(rt, clock_now() + c->drain_timeout);
	atomic_store(&second.done, true);
	if (watching) {
		/* NOLINTNEXTLINE(bugprone-bad-signal-to-kill-thread): sigwait takes it */
		(void)pthread_kill(thread, SIGTERM);
		(void)pthread_join(thread, NULL);
	}
	cut += atomic_load(&second.cut);
	log_event(c->log, cut ? LOG_WARN : LOG_INFO, "stopped", LOG_FIELDS(LOG_NUMBER("cut", cut)),
		  "stopped: %u connections closed by the drain timeout", cut);
	return EXIT_OK;
}

/* Whole or not at all, as somebody may read it now. */
static int write_pid(const char *path, struct pd_msg *msg)
{
	struct pd_msg inner = {0};
	char text[24];
	int n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());

	return file_write(path, text, (size_t)n, &inner)
		       ? pd_fail(msg, PD_EIO, "--pid-file: %.480s", inner.text)
		       : PD_OK;
}

int serve_run(const struct opt_command *command, const struct router_config *c,
	      struct capture *capture, const sigset_t *set, const char *pid_file,
	      void (*announce)(const struct router *rt, const struct router_config *c), bool *ended)
{
	struct pd_msg msg = {0};
	struct router *rt;
	int sig, code;

	if (router_start(&rt, c, capture, &msg))
		return cli_runtime_error(command, &msg);
	if (pid_file && write_pid(pid_file, &msg)) {
		(void)router_free(rt);
		return cli_runtime_error(command, &msg);
	}
	announce(rt, c);
	notify("READY=1");
	process_trim();
	do
		(void)sigwait(set, &sig);
	while (minor_signal(rt, c, sig, false));
	notify_stopping(c->drain_delay + c->drain_timeout + STOP_MARGIN);
	code = drain(rt, c, set);
	if (pid_file)
		(void)unlink(pid_file);
	*ended = router_free(rt);
	return code;
}
