/*
 * What people configure: the first byte chooses between a workers file (YAML), the URL of a worker,
 * and a command line with one word per line; the rest is the text.
 *
 * What must hold: a refusal has a message, of a file with its place, and leaves nothing behind; the
 * verdict is the same the second time; what was accepted lies in its bounds, and printed and read
 * again it is the same. The host and the path of an accepted URL make a request that we would
 * accept ourselves.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/opt.h"
#include "lib/http/head.h"
#include "lib/net/net.h"
#include "lib/router/config/workersfile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define TEXT_MAX  65536
#define WORDS_MAX 64

static void expect(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "fuzz_config: %s\n", what);
		abort();
	}
}

static void clear(struct buf *b)
{
	if (b->max == 0)
		buf_init(b, 1u << 24);
	buf_clear(b);
}

/* -- the URL of a worker -- */

static void check_request(const struct net_url *u)
{
	static struct http_head h;
	static struct buf text;
	size_t scanned = 0;

	clear(&text);
	expect(buf_printf(&text, "GET %s/x HTTP/1.1\r\nHost: %s\r\n\r\n", u->base, u->authority) ==
		       PD_OK,
	       "memory");
	if (http_request_parse(&h, text.data, text.len, &scanned) != PD_OK) {
		fprintf(stderr, "%s\n", h.why);
		expect(false, "an accepted URL makes a request that is refused");
	}
	expect(h.path.n == strlen(u->base) + 2, "an accepted URL moves the path");
}

static void check_url(const char *text)
{
	struct net_url u, again;
	struct pd_msg msg = {""};
	char printed[700];

	if (net_url_parse(&u, text, &msg)) {
		expect(msg.text[0] != '\0', "a URL refused without words");
		return;
	}
	expect(u.host[0] && u.port > 0 && u.authority[0] && u.rank >= -1 && u.rank <= 65535,
	       "parts of a URL");
	expect(!u.base[0] || (u.base[0] == '/' && u.base[strlen(u.base) - 1] != '/'),
	       "the base of a URL");
	check_request(&u);
	(void)snprintf(printed, sizeof(printed), u.rank >= 0 ? "%s%s%s@%d" : "%s%s%s",
		       u.tls ? "https://" : "http://", u.authority, u.base, u.rank);
	expect(net_url_parse(&again, printed, &msg) == PD_OK && u.tls == again.tls &&
		       u.port == again.port && u.rank == again.rank &&
		       strcmp(u.host, again.host) == 0 && strcmp(u.base, again.base) == 0 &&
		       strcmp(u.authority, again.authority) == 0,
	       "a URL printed and changed");
}

/* -- workers -- */

static void check_worker(const struct worker_spec *w)
{
	check_url(w->url);
	expect(w->name[0] && strlen(w->name) <= ROUTE_NAME_MAX, "the name of a worker");
}

static void free_config(struct fleet_config *c)
{
	worker_list_release(&c->workers);
}

static void check_one(const char *text)
{
	struct worker_list l = {0};
	struct pd_msg msg = {""};

	for (unsigned dp = 1; dp <= 3; dp += 2) {
		size_t before = l.n;

		if (worker_list_add(&l, ROLE_REGULAR, text, dp, &msg)) {
			expect(msg.text[0] && l.n == before, "a refused worker is there");
			continue;
		}
		expect(l.n == before + 1 || l.n == before + dp, "too many workers");
		for (size_t i = before; i < l.n; i++)
			check_worker(&l.spec[i]);
	}
	worker_list_release(&l);
}

/* As a file. Names and URLs are printable without quotes of their own, or are escaped. */
static void print_list(struct buf *out, const struct fleet_config *c, enum worker_role role,
		       bool pd, const char *key)
{
	bool any = false;

	for (size_t i = 0; i < c->workers.n; i++) {
		const struct worker_spec *w = &c->workers.spec[i];

		if (w->role != role)
			continue;
		if (!any)
			expect(buf_printf(out, "%s:\n", key) == PD_OK, "memory");
		any = true;
		expect(buf_puts(out, "- '") == PD_OK, "memory");
		for (const char *p = w->name; *p; p++)
			expect(buf_puts(out, *p == '\'' ? "''" : (char[2]){*p, 0}) == PD_OK,
			       "memory");
		expect(buf_putc(out, '=') == PD_OK, "memory");
		for (const char *p = w->url; *p; p++)
			expect(buf_puts(out, *p == '\'' ? "''" : (char[2]){*p, 0}) == PD_OK,
			       "memory");
		expect(buf_puts(out, "'\n") == PD_OK, "memory");
	}
	/* A list may be empty. */
	if (!any && (role != ROLE_REGULAR) == pd)
		expect(buf_printf(out, "%s: []\n", key) == PD_OK, "memory");
}

/* A name that is the URL, or has what YAML or "name=URL" would read otherwise, is not printed. */
static bool printable(const struct fleet_config *c)
{
	for (size_t i = 0; i < c->workers.n; i++) {
		const char *name = c->workers.spec[i].name;

		if (strstr(name, "://") || strlen(name) > 200)
			return false;
		for (; *name; name++)
			if ((unsigned char)*name < ' ' || (unsigned char)*name > '~')
				return false;
	}
	return true;
}

static void printed_again(const struct fleet_config *c, struct router_config *base)
{
	static const char *const keys[ROLES] = {"workers", "prefill", "decode"};
	static const char *const policies[ROLES] = {"policy", "prefill_policy", "decode_policy"};
	static struct buf text;
	struct fleet_config again;
	unsigned dp = base->dp_size;
	struct pd_msg msg = {""};

	if (!printable(c))
		return;
	clear(&text);
	for (int r = 0; r < ROLES; r++) {
		expect(buf_printf(&text, "%s: ", policies[r]) == PD_OK &&
			       route_spec_print(&c->policy[r], NULL, &text) == PD_OK &&
			       buf_putc(&text, '\n') == PD_OK,
		       "memory");
		print_list(&text, c, (enum worker_role)r, base->pd, keys[r]);
	}
	base->dp_size = 1; /* ranks are written out */
	if (fleet_config_parse(text.data, text.len, "again", base, &again, &msg)) {
		fprintf(stderr, "%s\n%s", msg.text, text.data);
		expect(false, "a file printed and refused");
	}
	base->dp_size = dp;
	expect(again.workers.n == c->workers.n &&
		       memcmp(again.policy, c->policy, sizeof(c->policy)) == 0,
	       "a file printed and changed");
	for (size_t r = 0, k = 0; r < ROLES; r++)
		for (size_t i = 0; i < c->workers.n; i++)
			if (c->workers.spec[i].role == (enum worker_role)r)
				expect(strcmp(c->workers.spec[i].name,
					      again.workers.spec[k].name) == 0 &&
					       strcmp(c->workers.spec[i].url,
						      again.workers.spec[k++].url) == 0,
				       "a worker printed and changed");
	free_config(&again);
}

static void check_file(const char *text, size_t n, bool pd, unsigned dp)
{
	static struct router_config base;
	struct fleet_config c, again;
	struct pd_msg msg = {""}, second = {""};
	int err;

	router_config_default(&base);
	base.pd = pd;
	base.dp_size = dp;
	err = fleet_config_parse(text, n, "f", &base, &c, &msg);
	expect(fleet_config_parse(text, n, "f", &base, &again, &second) == err &&
		       strcmp(msg.text, second.text) == 0 && again.workers.n == c.workers.n,
	       "another verdict the second time");
	free_config(&again);
	if (err) {
		expect(c.workers.n == 0 && msg.text[0],
		       "a refused file leaves workers, or no words");
		expect(err != PD_EINVAL || strncmp(msg.text, "f:", 2) == 0,
		       "a message without place");
		return;
	}
	expect(c.workers.n <= ROUTE_WORKERS_MAX, "a number of workers"); /* "[]" is a list */
	for (size_t i = 0; i < c.workers.n; i++) {
		expect((c.workers.spec[i].role == ROLE_REGULAR) != pd, "a role");
		check_worker(&c.workers.spec[i]);
	}
	printed_again(&c, &base);
	free_config(&c);
}

/* -- command lines -- */

struct values {
	bool flag;
	const char *text, *choice;
	int64_t number, free_number;
	double real, free_real;
	struct opt_list list, pair, rest;
};

static int parse(struct values *v, int argc, char **argv, struct pd_msg *msg)
{
	const struct opt opts[] = {
		{.type = OPT_HEADING, .help = "All of them"},
		{.type = OPT_FLAG, .name = "flag", .value = &v->flag},
		{.type = OPT_TEXT, .name = "text", .value = &v->text, .alias = "words"},
		{.type = OPT_CHOICE,
		 .name = "choice",
		 .value = &v->choice,
		 .choices = "red|green|redder"},
		{.type = OPT_INT, .name = "int", .value = &v->number, .min = -5, .max = 1000},
		{.type = OPT_INT, .name = "free-int", .value = &v->free_number},
		{.type = OPT_REAL, .name = "real", .value = &v->real, .min = 0, .max = 1.5},
		{.type = OPT_REAL, .name = "free-real", .value = &v->free_real, .max = INFINITY},
		{.type = OPT_LIST, .name = "list", .value = &v->list},
		{.type = OPT_LIST, .name = "pair", .value = &v->pair, .min = 1, .max = 2},
		{.type = OPT_END},
	};
	const struct opt_command c = {.name = "fuzz", .opts = opts};
	int err;

	*v = (struct values){0};
	err = opt_parse(&c, argc, argv, &v->rest, msg);
	(void)opt_given(&c, argc, argv, "text");
	return err;
}

static void values_release(struct values *v)
{
	opt_list_release(&v->list);
	opt_list_release(&v->pair);
	opt_list_release(&v->rest);
}

static bool one_of(const char *p, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (p >= argv[i] && p <= argv[i] + strlen(argv[i]))
			return true;
	return false;
}

static void check_values(const struct values *v, int argc, char **argv)
{
	expect(v->number >= -5 && v->number <= 1000, "a number out of its bounds");
	expect(v->real >= 0 && v->real <= 1.5 && !isnan(v->free_real), "a real out of its bounds");
	expect(!v->choice || strcmp(v->choice, "red") == 0 || strcmp(v->choice, "green") == 0 ||
		       strcmp(v->choice, "redder") == 0,
	       "a choice that is none");
	expect(!v->text || one_of(v->text, argc, argv), "a text from nowhere");
	expect(v->list.n + v->pair.n + v->rest.n < (size_t)argc, "more words than were given");
	for (size_t i = 0; i < v->list.n; i++)
		expect(one_of(v->list.items[i], argc, argv) &&
			       v->list.occurrence[i] < v->list.occurrences,
		       "a word from nowhere");
	for (size_t i = 1; i < v->pair.n; i++)
		expect(v->pair.occurrence[i] >= v->pair.occurrence[i - 1], "words out of order");
	for (size_t i = 0; i + 2 < v->pair.n; i++)
		expect(v->pair.occurrence[i] != v->pair.occurrence[i + 2], "three words of two");
}

/* The scalar values as --name=value. */
static void values_again(const struct values *v)
{
	static char word[6][96];
	char *argv[8] = {(char *)"fuzz"};
	struct values again;
	int argc = 1;

	(void)snprintf(word[0], 96, "--int=%lld", (long long)v->number);
	(void)snprintf(word[1], 96, "--free-int=%lld", (long long)v->free_number);
	(void)snprintf(word[2], 96, "--real=%.17g", v->real);
	(void)snprintf(word[3], 96, "--free-real=%.17g", v->free_real);
	(void)snprintf(word[4], 96, "--%sflag", v->flag ? "" : "no-");
	while (argc <= 5) {
		argv[argc] = word[argc - 1];
		argc++;
	}
	if (v->choice) {
		(void)snprintf(word[5], 96, "--choice=%s", v->choice);
		argv[argc++] = word[5];
	}
	expect(parse(&again, argc, argv, NULL) == PD_OK, "values printed and refused");
	expect(again.number == v->number && again.free_number == v->free_number &&
		       again.real == v->real && again.free_real == v->free_real &&
		       again.flag == v->flag && !again.choice == !v->choice &&
		       (!v->choice || strcmp(again.choice, v->choice) == 0),
	       "values printed and changed");
	values_release(&again);
}

static void check_words(char *text)
{
	char *argv[WORDS_MAX + 2] = {(char *)"fuzz"};
	struct pd_msg msg = {""};
	struct values v;
	int argc = 1, err;

	while (text && argc <= WORDS_MAX) {
		argv[argc++] = text;
		text = strchr(text, '\n');
		if (text)
			*text++ = '\0';
	}
	err = parse(&v, argc, argv, &msg);
	expect(err == PD_OK || err == OPT_HELP || err == PD_EINVAL, "an unknown verdict");
	expect((err == PD_EINVAL) == (msg.text[0] != '\0'), "a refusal without words, or words");
	check_values(&v, argc, argv);
	if (err == PD_OK)
		values_again(&v);
	values_release(&v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static char text[TEXT_MAX + 1];

	if (n < 1 || n > TEXT_MAX)
		return 0;
	memcpy(text, data + 1, n - 1);
	text[n - 1] = '\0';
	switch (data[0] & 3) {
	case 0:
		check_url(text);
		check_one(text);
		break;
	case 1:
		check_words(text);
		break;
	default:
		check_file(text, n - 1, data[0] & 1, (data[0] >> 2 & 3) + 1);
		break;
	}
	return 0;
}
