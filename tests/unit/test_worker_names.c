/* A simulated decode worker that is told to read from a host whose name is not answered: nobody
 * else on its loop waits for it. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <sched.h>
#include <stdio.h>

#include "sim/worker/worker.h"
#include "tests/unit/slow_names.h"
#include "tests/unit/sock.h"

static int ask(uint16_t port, const char *body)
{
	char text[2048];
	int fd = sock_dial(port),
	    n = snprintf(text, sizeof(text),
			 "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: "
			 "application/json\r\nContent-Length: %zu\r\n"
			 "Connection: close\r\n\r\n%s",
			 strlen(body), body);

	sock_say(fd, text, (size_t)n);
	return fd;
}

static void is_answered(int fd)
{
	char text[8192];
	size_t n = 0;
	ssize_t got;

	while ((got = sock_recv(fd, text + n, sizeof(text) - 1 - n)) > 0)
		n += (size_t)got;
	text[n] = '\0';
	assert_int_equal(got, 0); /* not the 20 s that a call may take */
	assert_int_equal(strncmp(text, "HTTP/1.1 200", 12), 0);
	(void)close(fd);
}

static void others_go_on(void **state)
{
	static const char *const models[] = {"m"};
	static const char plain[] = "{\"model\":\"m\",\"prompt\":\"a b\",\"max_tokens\":3}",
			  remote[] = "{\"model\":\"m\",\"prompt\":\"a b\",\"max_tokens\":1,"
				     "\"kv_transfer_params\":{\"do_remote_prefill\":true,"
				     "\"do_remote_decode\":false,\"remote_block_ids\":[[1]],"
				     "\"remote_engine_id\":\"e\",\"remote_request_id\":\"r\","
				     "\"remote_host\":\"hang.test\",\"remote_port\":9}}";
	struct worker_config cfg;
	struct worker *w;
	cpu_set_t one;
	int hung, left;

	(void)state;
	CPU_ZERO(&one); /* so that there is one loop */
	CPU_SET((size_t)sched_getcpu(), &one);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
	worker_config_default(&cfg);
	cfg.host = "127.0.0.1";
	cfg.port = 0;
	cfg.models = models;
	cfg.nmodels = 1;
	assert_int_equal(worker_start(&w, &cfg, NULL), PD_OK);
	hung = ask(worker_port(w), remote);
	while (atomic_load(&names_hanging) == 0)
		clock_sleep_until(clock_now() + NS_PER_MS);
	for (int i = 0; i < 3; i++)
		is_answered(ask(worker_port(w), plain));
	/* A client that leaves meanwhile costs nobody anything either. */
	left = ask(worker_port(w), remote);
	clock_sleep_until(clock_now() + 20 * NS_PER_MS);
	(void)close(left);
	is_answered(ask(worker_port(w), plain));
	/* Its own limit: then the prompt is computed here. */
	is_answered(hung);
	assert_int_equal(names_hanging, 1);
	worker_drain(w);
	assert_int_equal(worker_stop(w, clock_now() + 20 * NS_PER_S), 0);
	names_release();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(others_go_on),
	};

	return cmocka_run_group_tests_name("worker_names", tests, NULL, NULL);
}
