/* The base room: buffers at their limits, option tables, tables, files, the log. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/base/log.h"
#include "lib/base/opt.h"
#include "lib/base/rng.h"
#include "lib/base/table.h"

static void buffer_keeps_its_maximum(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 100);
	for (int i = 0; i < 100; i++)
		assert_int_equal(buf_putc(&b, 'x'), PD_OK);
	assert_int_equal(buf_putc(&b, 'y'), PD_ETOOBIG);
	assert_int_equal(buf_append(&b, "", SIZE_MAX), PD_ETOOBIG);
	assert_int_equal(b.len, 100);
	assert_int_equal(b.data[100], 0);
	assert_true(b.cap <= 101);
	buf_consume(&b, 99);
	assert_string_equal(b.data, "x");
	assert_int_equal(buf_printf(&b, "%d", 42), PD_OK);
	assert_string_equal(b.data, "x42");
	buf_release(&b);
	assert_int_equal(buf_append(&b, NULL, 0), PD_OK);
	buf_release(&b);
	buf_init(&b, 4);
	assert_int_equal(buf_puts(&b, "four"), PD_OK);
	assert_true(b.cap <= 5);
	buf_release(&b);
}

static int times_evaluated;

static bool evaluated(bool result)
{
	times_evaluated++;
	return result;
}

/* In a child. Its standard error goes to `out`, the line of the check to *line; returns its status.
 */
static int run_a_failing_check(char *out, size_t cap, int *line)
{
	struct rlimit no_core = {0, 0};
	int pipes[2], status = 0;
	ssize_t n, len = 0;
	pid_t child;

	assert_int_equal(pipe(pipes), 0);
	*line = __LINE__ + 5;
	child = fork();
	if (child == 0) {
		(void)setrlimit(RLIMIT_CORE, &no_core);
		(void)dup2(pipes[1], STDERR_FILENO);
		PD_CHECK(evaluated(cap < 2));
		_exit(times_evaluated);
	}
	(void)close(pipes[1]);
	while ((n = read(pipes[0], out + len, cap - 1 - (size_t)len)) > 0)
		len += n;
	out[len] = '\0';
	(void)close(pipes[0]);
	assert_int_equal(waitpid(child, &status, 0), child);
	return status;
}

static void a_failing_check_says_where_and_aborts(void **state)
{
	char said[1024], expected[256];
	int line, status = run_a_failing_check(said, sizeof(said), &line);

	(void)state;
	PD_CHECK(evaluated(true));
#ifdef PD_CHECKS
	(void)snprintf(expected, sizeof(expected),
		       "%s:%d: run_a_failing_check: check failed: evaluated(cap < 2)\n", __FILE__,
		       line);
	assert_int_equal(times_evaluated, 1);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
#else
	expected[0] = '\0';
	assert_int_equal(times_evaluated, 0);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
#endif
	assert_string_equal(said, expected);
}

struct values {
	bool flag;
	const char *text;
	int64_t n;
	double x;
	const char *choice;
	struct opt_list list, pair;
};

static struct values v;

static const struct opt table[] = {
	{.type = OPT_HEADING, .help = "things"},
	{OPT_FLAG, "flag", &v.flag, NULL, "a flag", NULL, 0, 0, "old-flag"},
	{OPT_TEXT, "text", &v.text, "TEXT", "a text", NULL, 0, 0, NULL},
	{OPT_INT, "number", &v.n, "N", "a number", NULL, 1, 10, NULL},
	{OPT_REAL, "real", &v.x, "X", "a real", NULL, 0, 1, NULL},
	{OPT_CHOICE, "choice", &v.choice, NULL, "a choice", "one|two|three", 0, 0, NULL},
	{OPT_LIST, "list", &v.list, "WORD...", "a list", NULL, 0, 0, NULL},
	{OPT_LIST, "pair", &v.pair, "A [B]", "one or two", NULL, 1, 2, NULL},
	{.type = OPT_END},
};

static const struct opt_command command = {"test",   "test [options]", "A test.",
					   "About.", "  $ test\n",     table};

static int parse(struct pd_msg *msg, struct opt_list *rest, const char *const *words)
{
	char *argv[32] = {(char *)(uintptr_t) "test"};
	int argc = 1;

	opt_list_release(&v.list);
	opt_list_release(&v.pair);
	v = (struct values){0};
	for (; *words; words++)
		argv[argc++] = (char *)(uintptr_t)*words;
	return opt_parse(&command, argc, argv, rest, msg);
}

#define PARSE(msg, rest, ...) parse(msg, rest, (const char *const[]){__VA_ARGS__, NULL})

static void options_are_read(void **state)
{
	struct opt_list rest = {0};
	struct pd_msg msg = {0};

	(void)state;
	assert_int_equal(PARSE(&msg, &rest, "a", "--old-flag", "--text=x=y", "--number", "7",
			       "--list", "p", "q", "--pair", "u", "--pair", "u2", "none", "b",
			       "--choice", "two", "--real", "0.5", "--", "--flag"),
			 PD_OK);
	assert_true(v.flag);
	assert_string_equal(v.text, "x=y");
	assert_int_equal(v.n, 7);
	assert_int_equal(v.list.n, 2);
	assert_int_equal(v.pair.n, 3);
	assert_int_equal(v.pair.occurrence[0], 0);
	assert_int_equal(v.pair.occurrence[2], 1);
	assert_string_equal(v.choice, "two");
	assert_int_equal(rest.n, 3);
	assert_string_equal(rest.items[2], "--flag");
	opt_list_release(&rest);
	assert_int_equal(PARSE(&msg, NULL, "--flag", "--no-flag"), PD_OK);
	assert_false(v.flag);
	assert_int_equal(PARSE(&msg, NULL, "--help"), OPT_HELP);
}

static void wrong_options_say_why(void **state)
{
	static const struct {
		const char *word, *value, *says;
	} cases[] = {
		{"--numbr", "1", "did you mean '--number'"},
		{"--number", "x", "found 'x', expected a whole number"},
		{"--number", "99", "expected 1 to 10"},
		{"--number", "99999999999999999999", "whole number"},
		{"--real", "nan", "expected a number"},
		{"--real", "2", "expected 0 to 1"},
		{"--choice", "tw", "expected one of one|two|three"},
		{"--choice", "", "expected one of"},
		{"--text", "--flag", "--text: expected TEXT"},
		{"--flag=1", NULL, "expected no value"},
		{"--no-text", NULL, "unknown option"},
		{"-x", NULL, "unknown option '-x'"},
		{"word", NULL, "unexpected argument 'word'"},
		{"--pair", "--flag", "expected A [B]"},
	};
	struct pd_msg msg;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		msg.text[0] = '\0';
		assert_int_equal(PARSE(&msg, NULL, cases[i].word, cases[i].value), PD_EINVAL);
		if (!strstr(msg.text, cases[i].says))
			fail_msg("%s: '%s' lacks '%s'", cases[i].word, msg.text, cases[i].says);
	}
	opt_list_release(&v.list);
	opt_list_release(&v.pair);
}

static void help_lists_every_option(void **state)
{
	struct buf b, md;

	(void)state;
	buf_init(&b, 65536);
	buf_init(&md, 65536);
	assert_int_equal(opt_help(&command, &b), PD_OK);
	assert_int_equal(opt_markdown(&command, &md), PD_OK);
	for (const struct opt *o = table; o->type != OPT_END; o++) {
		assert_non_null(strstr(b.data, o->type == OPT_HEADING ? "things:" : o->name));
		assert_non_null(strstr(md.data, o->type == OPT_HEADING ? "things" : o->name));
	}
	assert_non_null(strstr(md.data, "one\\|two"));
	buf_release(&b);
	buf_release(&md);
}

static void tables_line_up(void **state)
{
	struct table t;
	struct buf b;

	(void)state;
	table_init(&t);
	buf_init(&b, 4096);
	table_column(&t, "name");
	table_column(&t, ">n");
	table_row(&t);
	table_cell(&t, "µs");
	table_cell(&t, "%d", 12345);
	table_row(&t);
	table_cell(&t, "longer");
	table_cell(&t, "1");
	assert_int_equal(table_text(&t, &b), PD_OK);
	assert_string_equal(b.data, "name        n\n------  -----\nµs      12345\nlonger      1\n");
	buf_clear(&b);
	assert_int_equal(table_markdown(&t, &b), PD_OK);
	assert_string_equal(
		b.data,
		"| name   |     n |\n|--------|------:|\n| µs     | 12345 |\n| longer |     1 |\n");
	table_cell(&t, "one too many");
	assert_int_equal(table_text(&t, &b), PD_ENOMEM);
	table_release(&t);
	buf_release(&b);
}

static void files_are_whole_or_absent(void **state)
{
	char dir[] = "/tmp/pdctl-test-XXXXXX", path[64], tmp[96];
	struct pd_msg msg = {0};
	struct buf b;

	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/f", dir);
	assert_int_equal(file_write(path, "hello", 5, &msg), PD_OK);
	buf_init(&b, 5);
	assert_int_equal(file_read(path, &b, &msg), PD_OK);
	assert_string_equal(b.data, "hello");
	buf_release(&b);
	buf_init(&b, 4);
	assert_int_equal(file_read(path, &b, &msg), PD_ETOOBIG);
	assert_non_null(strstr(msg.text, "larger than 4 bytes"));
	buf_release(&b);
	(void)snprintf(tmp, sizeof(tmp), "%s/none/f", dir);
	assert_int_equal(file_write(tmp, "x", 1, &msg), PD_EIO);
	assert_non_null(strstr(msg.text, "No such file"));
	assert_int_equal(file_write("/dev/full", "x", 1, &msg), PD_EIO);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(dir), 0); /* fails when a temporary file was left */
}

static void log_lines_are_single_lines(void **state)
{
	int fds[2];
	char text[8192];
	struct log *l;
	ssize_t n;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	l = log_new(fds[1], LOG_INFO, true);
	assert_non_null(l);
	log_line(l, LOG_DEBUG, "never");
	log_line(l, LOG_INFO, "quote \" back \\ newline \n tab \t end");
	log_json(l, LOG_WARN, "Scoring decision", "\"selected\":[\"w1\"]");
	log_free(l);
	n = read(fds[0], text, sizeof(text) - 1);
	assert_true(n > 0);
	text[n] = '\0';
	assert_null(strstr(text, "never"));
	assert_non_null(strstr(
		text, "\"msg\":\"quote \\\" back \\\\ newline \\u000a tab \\u0009 end\"}\n"));
	assert_non_null(strstr(text, "\"msg\":\"Scoring decision\",\"selected\":[\"w1\"]}\n"));
	(void)close(fds[0]);
	(void)close(fds[1]);
}

static void expect_file(const char *path, const char *text)
{
	struct buf b;

	buf_init(&b, 4096);
	assert_int_equal(file_read(path, &b, NULL), PD_OK);
	assert_string_equal(b.data ? b.data : "", text);
	buf_release(&b);
}

static void no_line_is_lost_for_its_length(void **state)
{
	static char members[60000], got[80000];
	char path[] = "/tmp/pdctl-test-XXXXXX";
	int fd = mkstemp(path);
	struct log *l = log_new(fd, LOG_INFO, false);
	const char *end;
	ssize_t n;

	(void)state;
	assert_int_equal(unlink(path), 0);
	memset(members, 'x', sizeof(members) - 1);
	memcpy(members, "\"m\":\"", 5);
	members[sizeof(members) - 2] = '"';
	log_line(l, LOG_INFO, "%s", members);
	log_json(l, LOG_INFO, "long", members);
	log_json(l, LOG_INFO, "none", "");
	assert_int_equal(log_dropped(l), 0);
	log_free(l);
	n = pread(fd, got, sizeof(got) - 1, 0);
	assert_true(n > (ssize_t)sizeof(members));
	got[n] = '\0';
	end = strchr(got, '\n');
	assert_true(end - got > 4000 && end - got < 4200 && strncmp(end - 3, "...", 3) == 0);
	assert_int_equal(strncmp(end + 1, "{\"ts\":", 6), 0);
	end = strchr(end + 1, '\n');
	assert_memory_equal(end - sizeof(members), members, sizeof(members) - 1);
	assert_int_equal(end[-1], '}');
	assert_non_null(strstr(end, "\"msg\":\"none\"}\n"));
	(void)close(fd);
}

static void a_log_file_is_reopened(void **state)
{
	char dir[] = "/tmp/pdctl-log-XXXXXX", path[64], old[64];
	struct pd_msg msg;
	struct log *l;

	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/log", dir);
	(void)snprintf(old, sizeof(old), "%s/old", dir);
	assert_int_equal(log_open(&l, path, &msg), PD_OK);
	log_put(l, "one\n", 4);
	log_free(l);
	assert_int_equal(log_open(&l, path, &msg), PD_OK);
	log_put(l, "two\n", 4);
	log_free(l);
	expect_file(path, "one\ntwo\n");
	/* Again and again without a line in between, then one: it is in the new file. */
	assert_int_equal(log_open(&l, path, &msg), PD_OK);
	assert_int_equal(rename(path, old), 0);
	for (int i = 0; i < 100; i++)
		assert_int_equal(log_reopen(l, &msg), PD_OK);
	log_put(l, "three\n", 6);
	/* It cannot be opened: the log stays where it is. */
	assert_int_equal(rename(path, old), 0);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(log_reopen(l, &msg), PD_EIO);
	assert_non_null(strstr(msg.text, path));
	log_put(l, "four\n", 5);
	log_free(l);
	expect_file(old, "three\nfour\n");
	assert_int_equal(log_open(&l, "/none/log", &msg), PD_EIO);
	assert_null(l);
	log_put(NULL, "x\n", 2);
	assert_int_equal(log_reopen(NULL, &msg), PD_OK);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(unlink(old), 0);
	assert_int_equal(rmdir(dir), 0);
}

static void lines_that_cannot_be_written_are_counted(void **state)
{
	struct pd_msg msg;
	struct log *l;

	(void)state;
	assert_int_equal(log_open(&l, "/dev/full", &msg), PD_OK);
	log_put(l, "1\n2\n3\n", 6);
	for (int i = 0; i < 1000 && log_dropped(l) < 3; i++)
		clock_sleep_until(clock_now() + 10 * NS_PER_MS);
	assert_int_equal(log_dropped(l), 3);
	log_free(l);
}

static void random_numbers_are_the_published_ones(void **state)
{
	struct rng r;
	uint64_t seed = 0;
	double sum = 0;

	(void)state;
	/* splitmix64 reference output for seed 0. */
	assert_true(rng_splitmix(&seed) == 0xe220a8397b1dcdafu);
	assert_true(rng_splitmix(&seed) == 0x6e789e6aa1b965f4u);
	/* xoshiro256** reference: state 1, 2, 3, 4 gives 11520, 0, 1509978240, ... */
	r = (struct rng){{1, 2, 3, 4}};
	assert_true(rng_u64(&r) == 11520);
	assert_true(rng_u64(&r) == 0);
	assert_true(rng_u64(&r) == 1509978240);
	rng_seed(&r, 7);
	for (int i = 0; i < 100000; i++) {
		assert_true(rng_below(&r, 3) < 3);
		sum += rng_gamma(&r, 0.5, 2.0);
	}
	assert_true(sum / 100000 > 0.97 && sum / 100000 < 1.03);
	assert_true(rng_below(&r, 0) == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buffer_keeps_its_maximum),
		cmocka_unit_test(a_failing_check_says_where_and_aborts),
		cmocka_unit_test(options_are_read),
		cmocka_unit_test(wrong_options_say_why),
		cmocka_unit_test(help_lists_every_option),
		cmocka_unit_test(tables_line_up),
		cmocka_unit_test(files_are_whole_or_absent),
		cmocka_unit_test(log_lines_are_single_lines),
		cmocka_unit_test(no_line_is_lost_for_its_length),
		cmocka_unit_test(a_log_file_is_reopened),
		cmocka_unit_test(lines_that_cannot_be_written_are_counted),
		cmocka_unit_test(random_numbers_are_the_published_ones),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
