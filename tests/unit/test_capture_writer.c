/* The capture's writer: every record is in the file or counted as lost, also when the file fails
 * while the router ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "lib/base/file.h"
#include "lib/router/capture/capture.h"
#include "lib/router/capture/capture_record.h"
#include "lib/router/fleet/fleet.h"

#define RECORDS 50000 /* more than three transactions take */

static char file[64], log_file[64];
static struct router_config config;

static void names(void)
{
	(void)snprintf(file, sizeof(file), "test-capture.%ld.db", (long)getpid());
	(void)snprintf(log_file, sizeof(log_file), "test-capture.%ld.log", (long)getpid());
}

static void clean(void)
{
	char side[80];

	(void)unlink(file);
	(void)unlink(log_file);
	(void)snprintf(side, sizeof(side), "%s-wal", file);
	(void)unlink(side);
	(void)snprintf(side, sizeof(side), "%s-shm", file);
	(void)unlink(side);
}

static struct capture *opened(int64_t max_bytes)
{
	struct capture_config c;
	struct capture *capture;
	struct pd_msg msg;

	names();
	clean();
	capture_config_default(&c);
	c.path = file;
	c.max_bytes = max_bytes;
	router_config_default(&config);
	config.version = "test";
	assert_int_equal(log_open(&config.log, log_file, &msg), PD_OK);
	assert_int_equal(capture_new(&capture, &c, &msg), PD_OK);
	return capture;
}

/* As many records as the queue takes; both kinds. */
static void fill(struct capture *c, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (i % 2) {
			struct capture_decision *d =
				capture_reserve(c, CAPTURE_DECISION, sizeof(*d));

			assert_non_null(d);
			*d = (struct capture_decision){.kind = CAPTURE_DECISION, .request = i};
			capture_commit(c, d);
		} else {
			struct capture_request *r =
				capture_reserve(c, CAPTURE_REQUEST, sizeof(*r) + 3);

			assert_non_null(r);
			*r = (struct capture_request){.kind = CAPTURE_REQUEST,
						      .id = i + 1,
						      .route = "other",
						      .max_tokens = -1,
						      .prompt_bytes = -1,
						      .usage = {-1, -1, -1},
						      .accepted = 1,
						      .ended = 1,
						      .len[TEXT_METHOD] = 3};
			memcpy(r + 1, "GET", 3);
			capture_commit(c, r);
		}
	}
}

/* Runs it for no time at all; what it says about itself afterwards. */
static void run(struct capture *c, struct prom_page *page)
{
	struct pd_msg msg;

	*page = (struct prom_page){.cfg = &config};
	assert_int_equal(capture_start(c, &config, &msg), PD_OK);
	capture_stop(c);
	capture_stats(c, page);
	log_free(config.log);
	assert_int_equal(page->number[SINGLE_CAPTURE_QUEUE], 0);
}

static bool log_says(const char *text)
{
	struct buf b;
	bool found;

	buf_init(&b, 1u << 20);
	assert_int_equal(file_read(log_file, &b, NULL), PD_OK);
	found = b.len > 0 && strstr(b.data, text);
	buf_release(&b);
	return found;
}

static int64_t ask(const char *sql)
{
	sqlite3_stmt *st;
	sqlite3 *db;
	int64_t n;

	assert_int_equal(sqlite3_open_v2(file, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &st, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(st), SQLITE_ROW);
	n = sqlite3_column_int64(st, 0);
	(void)sqlite3_finalize(st);
	(void)sqlite3_close(db);
	return n;
}

static void what_was_queued_is_in_the_file_at_the_end(void **state)
{
	struct capture *c = opened(0);
	struct prom_page page;

	(void)state;
	fill(c, RECORDS);
	run(c, &page);
	assert_int_equal(page.capture.written[PROM_REQUEST], RECORDS / 2);
	assert_int_equal(page.capture.written[PROM_DECISION], RECORDS / 2);
	assert_int_equal(ask("SELECT count(*) FROM request"), RECORDS / 2);
	assert_int_equal(ask("SELECT count(*) FROM decision"), RECORDS / 2);
	assert_int_equal(ask("SELECT count(*) FROM dropped"), 0);
	assert_int_equal(ask("SELECT ended_ns IS NOT NULL FROM run"), 1);
	capture_free(c);
	clean();
}

/* The first transaction fails, and nothing is tried for those behind it: they are lost as well. */
static void a_file_that_is_gone_lacks_everything(void **state)
{
	struct capture *c = opened(0);
	struct prom_page page;
	char line[80];

	(void)state;
	fill(c, RECORDS);
	assert_int_equal(unlink(file), 0);
	run(c, &page);
	assert_int_equal(page.capture.write_error[PROM_REQUEST], RECORDS / 2);
	assert_int_equal(page.capture.write_error[PROM_DECISION], RECORDS / 2);
	assert_int_equal(page.capture.written[PROM_REQUEST] + page.capture.written[PROM_DECISION],
			 0);
	(void)snprintf(line, sizeof(line), "lacks %d records", RECORDS);
	assert_true(log_says(line));
	capture_free(c);
	clean();
}

/* There is room for some transactions only: what is in the file and what it says that it lacks are
 * all of it. */
static void a_full_file_says_what_it_lacks(void **state)
{
	struct capture *c = opened(1 << 20);
	struct prom_page page;
	uint64_t lost, written;

	(void)state;
	fill(c, RECORDS);
	run(c, &page);
	lost = page.capture.write_error[PROM_REQUEST] + page.capture.write_error[PROM_DECISION];
	written = page.capture.written[PROM_REQUEST] + page.capture.written[PROM_DECISION];
	assert_int_equal(lost + written, RECORDS);
	assert_true(lost > 16384);
	assert_int_equal(ask("SELECT (SELECT count(*) FROM request) + (SELECT count(*) FROM "
			     "decision)"),
			 written);
	assert_int_equal(ask("SELECT coalesce(sum(requests + decisions), 0) FROM dropped"), lost);
	capture_free(c);
	clean();
}

static void captured(void *ctx, struct fleet *f)
{
	capture_fleet(ctx, f);
}

/* The workers were replaced meanwhile; after the failure the writer still says which are available.
 */
static void a_failure_keeps_the_fleet_that_only_the_capture_has(void **state)
{
	struct capture *c = opened(1 << 20);
	struct fleet_config fc = {.workers = {0}};
	int64_t end = clock_now() + 20 * NS_PER_S;
	struct fleet_holder h;
	struct pd_msg msg;

	(void)state;
	assert_int_equal(fleet_holder_init(&h), PD_OK);
	for (int r = 0; r < ROLES; r++)
		fc.policy[r] = route_spec_of(route_policy_find(SPAN("random")));
	h.on_change = captured;
	h.ctx = c;
	assert_int_equal(worker_list_add(&fc.workers, ROLE_REGULAR, "http://127.0.0.1:1", 1, &msg),
			 PD_OK);
	assert_int_equal(capture_start(c, &config, &msg), PD_OK);
	assert_int_equal(fleet_load(&h, &config, &fc, &msg), PD_OK);
	while (ask("SELECT count(*) FROM fleet") == 0 && clock_now() < end)
		clock_sleep_until(clock_now() + NS_PER_MS);
	fleet_holder_release(&h);
	worker_list_release(&fc.workers);
	fill(c, RECORDS);
	capture_stop(c);
	assert_true(log_says("cannot write"));
	log_free(config.log);
	capture_free(c);
	clean();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_queued_is_in_the_file_at_the_end),
		cmocka_unit_test(a_file_that_is_gone_lacks_everything),
		cmocka_unit_test(a_full_file_says_what_it_lacks),
		cmocka_unit_test(a_failure_keeps_the_fleet_that_only_the_capture_has),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
