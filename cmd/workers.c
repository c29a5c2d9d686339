/* pdctl workers: list and change the fleet of a running router, through its admin port. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/adminclient.h"
#include "cmd/cmd.h"
#include "lib/base/cli.h"
#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/base/nearest.h"
#include "lib/base/table.h"

#define OUT_MAX	  (64u << 20)
#define KEY_MAX	  8192
#define LOOK_STEP (200 * NS_PER_MS) /* with --wait, between looks */

static struct {
	const char *router, *role, *ca_file, *key_file;
	int64_t bootstrap;
	double timeout;
	bool wait, force, json;
} o;

static const struct opt options[] = {
	{OPT_TEXT, "router", &o.router, "URL", "the router's admin port (http://127.0.0.1:29000)",
	 NULL, 0, 0, NULL},
	{OPT_TEXT, "ca-file", &o.ca_file, "FILE",
	 "PEM with the authorities of an https:// router (the system's)", NULL, 0, 0, NULL},
	{OPT_TEXT, "api-key-file", &o.key_file, "FILE",
	 "a key of the router's --admin-api-key-file, or of a client where --router is a data port "
	 "(none)",
	 NULL, 0, 0, NULL},
	{OPT_CHOICE, "role", &o.role, NULL,
	 "add: the pool it joins; else only workers of it (add to a plain pool: regular; else all)",
	 "regular|prefill|decode", 0, 0, NULL},
	{OPT_INT, "bootstrap-port", &o.bootstrap, "N",
	 "add: of a prefill worker; NIXL has no use for it (none)", NULL, 0, 65535, NULL},
	{OPT_FLAG, "wait", &o.wait, NULL,
	 "add: until it is healthy, else it is removed again; drain: until it is idle; remove: "
	 "until "
	 "it is removed",
	 NULL, 0, 0, NULL},
	{OPT_REAL, "timeout-secs", &o.timeout, "S",
	 "--wait ends with exit code 1 after this time (600)", NULL, 0, 1e6, NULL},
	{OPT_FLAG, "force", &o.force, NULL,
	 "remove: at once, without draining; streams in flight still end by themselves", NULL, 0, 0,
	 NULL},
	{OPT_FLAG, "json", &o.json, NULL, "print the router's answers, one per line", NULL, 0, 0,
	 NULL},
	{.type = OPT_END},
};

static const struct opt_command command = {
	.name = "workers",
	.usage = "pdctl workers list | show ID... | add [NAME=]URL... | drain ID... | undrain "
		 "ID... | "
		 "remove ID... [options]",
	.summary = "List and change the workers of a running router without losing a request.",
	.about =
		"ID is a worker's name or URL; without @RANK it means all ranks of a server. A "
		"worker "
		"that was added gets\n"
		"requests after its first successful health check. One that is drained gets no new "
		"ones; one "
		"that is removed\n"
		"leaves the list when its requests in flight have ended. Exit codes: 0 done, 1 "
		"--wait timed out, 2 wrong\n"
		"request, 3 no answer or the router failed.",
	.examples =
		"  list the workers and their load:\n"
		"    pdctl workers list\n"
		"  add a decode worker and wait until it serves:\n"
		"    pdctl workers add d3=http://10.0.0.7:8000 --role decode --wait\n"
		"  remove one without losing a request (then its process can be stopped):\n"
		"    pdctl workers drain d1 --wait && ssh 10.0.0.3 systemctl stop vllm && pdctl "
		"workers remove d1\n"
		"  a router on another host, for a script:\n"
		"    pdctl workers list --router http://router-1:29000 --role prefill --json\n",
	.opts = options,
};

/* -- reading answers -- */

static const char *text_of(const cJSON *w, const char *name)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(w, name));

	return s ? s : "";
}

static double number_of(const cJSON *w, const char *name)
{
	const cJSON *n = cJSON_GetObjectItemCaseSensitive(w, name);

	return cJSON_IsNumber(n) ? n->valuedouble : 0;
}

/* What an answer says about workers: {"workers":[...]}, {"worker":{...}}, or a worker itself. */
static const cJSON *workers_in(const cJSON *answer, size_t *n)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(answer, "workers"),
		    *one = cJSON_GetObjectItemCaseSensitive(answer, "worker");

	*n = cJSON_IsArray(list) ? (size_t)cJSON_GetArraySize(list) : 1;
	if (cJSON_IsArray(list))
		return list->child;
	return cJSON_IsObject(one) ? one : cJSON_IsObject(answer) ? answer : NULL;
}

static bool is_shown(const cJSON *w)
{
	return !o.role || strcmp(text_of(w, "worker_type"), o.role) == 0;
}

/* -- printing -- */

static void print_line(const char *text)
{
	cli_print(text, strlen(text));
	cli_print("\n", 1);
}

static const char *text_or_dash(const cJSON *w, const char *name)
{
	const char *s = text_of(w, name);

	return s[0] ? s : "-";
}

static int print_table(const cJSON *first, size_t n)
{
	struct table t;
	struct buf out;
	const cJSON *w = first;
	int err;

	table_init(&t);
	table_column(&t, "name");
	table_column(&t, "role");
	table_column(&t, "state");
	table_column(&t, ">in flight");
	table_column(&t, ">silent");
	table_column(&t, ">hand-overs");
	table_column(&t, ">requests");
	table_column(&t, ">errors");
	table_column(&t, ">refused");
	table_column(&t, ">503");
	table_column(&t, ">429");
	table_column(&t, "url");
	table_column(&t, "address");
	table_column(&t, "out since");
	table_column(&t, "why");
	for (size_t i = 0; w && i < n; i++, w = w->next) {
		if (!is_shown(w))
			continue;
		table_row(&t);
		table_cell(&t, "%s", text_of(w, "name"));
		table_cell(&t, "%s", text_of(w, "worker_type"));
		table_cell(&t, "%s", text_of(w, "state"));
		table_cell(&t, "%.0f", number_of(w, "load"));
		if (cJSON_IsNumber(cJSON_GetObjectItemCaseSensitive(w, "oldest_silent_s")))
			table_cell(&t, "%.1f s", number_of(w, "oldest_silent_s"));
		else
			table_cell(&t, "-");
		table_cell(&t, "%.0f", number_of(w, "handovers"));
		table_cell(&t, "%.0f", number_of(w, "requests"));
		table_cell(&t, "%.0f", number_of(w, "errors"));
		table_cell(&t, "%.0f", number_of(w, "connect_failures"));
		table_cell(&t, "%.0f", number_of(w, "answered_503"));
		table_cell(&t, "%.0f", number_of(w, "answered_429"));
		table_cell(&t, "%s", text_of(w, "url"));
		table_cell(&t, "%s", text_or_dash(w, "address"));
		table_cell(&t, "%s", text_or_dash(w, "out_since"));
		table_cell(&t, "%s", text_or_dash(w, "out_because"));
	}
	buf_init(&out, OUT_MAX);
	err = table_text(&t, &out);
	if (!err)
		cli_print(out.data, out.len);
	buf_release(&out);
	table_release(&t);
	return err;
}

/* What the list says about whole pools. */
static void print_pools(const cJSON *answer)
{
	const cJSON *role;
	char line[200];

	if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(answer, "degraded")))
		print_line("degraded: no prefill worker is available to prefill/decode");
	cJSON_ArrayForEach(role, cJSON_GetObjectItemCaseSensitive(answer, "panic"))
	{
		(void)snprintf(line, sizeof(line),
			       "panic: the %.40s pool has too many open breakers, requests go to "
			       "these workers too",
			       cJSON_IsString(role) ? role->valuestring : "");
		print_line(line);
	}
}

/* Every member of a worker on a line of its own. */
static void print_members(const cJSON *w)
{
	const cJSON *m;
	char line[1200];

	cJSON_ArrayForEach(m, w)
	{
		char *value = cJSON_IsString(m) ? NULL : cJSON_PrintUnformatted(m);

		(void)snprintf(line, sizeof(line), "%-16s  %s", m->string,
			       cJSON_IsString(m) ? m->valuestring
			       : value		 ? value
						 : "");
		print_line(line);
		cJSON_free(value);
	}
}

/* The answer as the router gave it, on one line; with --role only those workers of a list. */
static int print_json(const cJSON *answer)
{
	cJSON *copy = cJSON_Duplicate(answer, true), *list, *w, *next;
	char *text;

	list = cJSON_GetObjectItemCaseSensitive(copy, "workers");
	for (w = o.role && cJSON_IsArray(list) ? list->child : NULL; w; w = next) {
		next = w->next;
		if (!is_shown(w))
			cJSON_Delete(cJSON_DetachItemViaPointer(list, w));
	}
	text = copy ? cJSON_PrintUnformatted(copy) : NULL;
	if (text)
		print_line(text);
	cJSON_free(text);
	cJSON_Delete(copy);
	return text ? PD_OK : PD_ENOMEM;
}

/* -- one request and its exit code -- */

/* The router speaks of its JSON; here the same thing is an option. */
static int failed(const struct admin_client *c, const struct admin_reply *r)
{
	static const char member[] = "worker_type: ";
	struct pd_msg msg = {0}, said = {0};

	admin_reply_error(c, r, &said);
	if (strncmp(said.text, member, sizeof(member) - 1) == 0)
		(void)pd_fail(&msg, PD_EINVAL, "--role: %.480s", said.text + sizeof(member) - 1);
	else
		msg = said;
	return r->status >= 400 && r->status < 500 ? cli_usage_error(&command, &msg)
						   : cli_runtime_error(&command, &msg);
}

/* EXIT_OK: the answer is in *r, to be released; else said already. */
/* With --role an id means the workers of that role only. */
static int request(struct admin_client *c, const char *method, const char *path, const char *id,
		   const char *body, struct admin_reply *r, struct pd_msg *msg)
{
	char with_role[100];

	(void)snprintf(with_role, sizeof(with_role), "%s%cworker_type=%s", path,
		       strchr(path, '?') ? '&' : '?', o.role ? o.role : "");
	return admin_client_ask(c, method, id && o.role ? with_role : path, id, body, r, msg);
}

static int ask(struct admin_client *c, const char *method, const char *path, const char *id,
	       const char *body, struct admin_reply *r)
{
	struct pd_msg msg = {0};
	int code;

	if (request(c, method, path, id, body, r, &msg))
		return cli_runtime_error(&command, &msg);
	if (r->status >= 200 && r->status < 300 && cJSON_IsObject(r->json))
		return EXIT_OK;
	code = failed(c, r);
	admin_reply_release(r);
	return code;
}

/* -- waiting -- */

enum goal { GOAL_SERVES, GOAL_IDLE, GOAL_GONE };

/* Has every worker of the answer reached the goal? `why` gets what is missing. */
static bool reached(enum goal goal, const struct admin_reply *r, char *why, size_t cap)
{
	double needed = 0;
	const cJSON *w;
	size_t n;

	if (goal == GOAL_GONE || r->status == 404) {
		(void)snprintf(why, cap, "is still listed");
		return r->status == 404;
	}
	w = workers_in(r->json, &n);
	for (size_t i = 0; w && i < n; i++, w = w->next) {
		if (goal == GOAL_SERVES && strcmp(text_of(w, "state"), "available") != 0) {
			(void)snprintf(why, cap, "is %.40s%s%.160s%s", text_of(w, "state"),
				       *text_of(w, "last_failure") ? " (" : "",
				       text_of(w, "last_failure"),
				       *text_of(w, "last_failure") ? ")" : "");
			return false;
		}
		needed += number_of(w, "load") + number_of(w, "handovers");
	}
	(void)snprintf(why, cap, "has %.0f requests in flight", needed);
	return goal == GOAL_SERVES || needed == 0;
}

/* Polls until the goal is reached; an idle worker must be idle twice. EXIT_FINDING after
 * --timeout-secs. */
static int wait_for(struct admin_client *c, const char *id, enum goal goal)
{
	int64_t now = clock_now(), deadline = now + (int64_t)(o.timeout * 1e9);
	struct admin_reply r;
	struct pd_msg msg = {0};
	char why[240];
	int good = 0;

	for (;; now = clock_now()) {
		if (request(c, "GET", "/workers/{id}", id, NULL, &r, &msg))
			return cli_runtime_error(&command, &msg);
		if (r.status != 200 && r.status != 404) {
			int code = failed(c, &r);

			admin_reply_release(&r);
			return code;
		}
		if (goal == GOAL_SERVES && r.status == 404) {
			admin_reply_release(&r);
			(void)pd_fail(&msg, PD_ENOENT,
				      "worker '%.200s' has been removed in the meantime", id);
			(void)cli_runtime_error(&command, &msg);
			return EXIT_FINDING;
		}
		good = reached(goal, &r, why, sizeof(why)) ? good + 1 : 0;
		admin_reply_release(&r);
		if (good > (goal == GOAL_IDLE))
			return EXIT_OK;
		if (now >= deadline) {
			(void)pd_fail(&msg, PD_ETIMEOUT, "worker '%.200s' %.230s after %g s", id,
				      why, o.timeout);
			(void)cli_runtime_error(&command, &msg);
			return EXIT_FINDING;
		}
		clock_sleep_until(now + LOOK_STEP < deadline ? now + LOOK_STEP : deadline);
	}
}

/* -- the verbs -- */

static int verb_list(struct admin_client *c, const char *id)
{
	struct admin_reply r;
	int code = ask(c, "GET", "/workers", id, NULL, &r), err;
	const cJSON *first;
	size_t n;

	if (code)
		return code;
	first = workers_in(r.json, &n);
	err = o.json ? print_json(r.json) : print_table(first, n);
	if (!o.json)
		print_pools(r.json);
	admin_reply_release(&r);
	return err ? EXIT_RUNTIME : EXIT_OK;
}

static int verb_show(struct admin_client *c, const char *id)
{
	struct admin_reply r;
	int code = ask(c, "GET", "/workers/{id}", id, NULL, &r);
	const cJSON *w;
	size_t n;

	if (code)
		return code;
	if (o.json) {
		(void)!print_json(r.json);
	} else {
		w = workers_in(r.json, &n);
		for (size_t i = 0; w && i < n; i++, w = w->next) {
			if (i > 0)
				print_line("");
			print_members(w);
		}
	}
	admin_reply_release(&r);
	return EXIT_OK;
}

/* What became of each worker in the answer: "added d3 (decode, http://...): starting". */
static void print_done(const char *done, const cJSON *answer)
{
	char line[1200];
	const cJSON *w;
	size_t n;

	w = workers_in(answer, &n);
	for (size_t i = 0; w && i < n; i++, w = w->next) {
		(void)snprintf(line, sizeof(line), "%s %.300s (%s, %.600s): %s", done,
			       text_of(w, "name"), text_of(w, "worker_type"), text_of(w, "url"),
			       text_of(w, "state"));
		print_line(line);
	}
}

/* "NAME=URL" is split as the router's options do: at a = before the scheme. */
static char *body_of(const char *text, const char **url)
{
	const char *eq = strchr(text, '='), *scheme = strstr(text, "://");
	cJSON *doc = cJSON_CreateObject();
	char *name = NULL, *body;

	*url = text;
	if (eq && (!scheme || eq < scheme)) {
		name = strndup(text, (size_t)(eq - text));
		*url = eq + 1;
	}
	(void)cJSON_AddStringToObject(doc, "url", *url);
	if (name)
		(void)cJSON_AddStringToObject(doc, "name", name);
	if (o.role)
		(void)cJSON_AddStringToObject(doc, "worker_type", o.role);
	if (o.bootstrap > 0)
		(void)cJSON_AddNumberToObject(doc, "bootstrap_port", (double)o.bootstrap);
	body = cJSON_PrintUnformatted(doc);
	free(name);
	cJSON_Delete(doc);
	return body;
}

/* The answer to the addition is replaced by what the worker is then. It is asked for by its name:
 * without --role a URL may mean others too. */
static int wait_until_it_serves(struct admin_client *c, struct admin_reply *r, const char *url)
{
	size_t n;
	const cJSON *w = workers_in(r->json, &n);
	char *id = strdup(w && n == 1 ? text_of(w, "name") : url);
	struct admin_reply gone;
	struct pd_msg msg = {0};
	int code;

	admin_reply_release(r);
	code = id ? wait_for(c, id, GOAL_SERVES) : EXIT_RUNTIME;
	/* Half an addition is none, as with ?wait=true. */
	if (code == EXIT_FINDING &&
	    request(c, "DELETE", "/workers/{id}?force=true", id, NULL, &gone, &msg) == PD_OK) {
		if (gone.status >= 200 && gone.status < 300)
			(void)fprintf(stderr, "pdctl workers: worker '%.200s' was removed again\n",
				      id);
		admin_reply_release(&gone);
	}
	code = code ? code : ask(c, "GET", "/workers/{id}", id, NULL, r);
	free(id);
	return code;
}

static int verb_add(struct admin_client *c, const char *text)
{
	struct admin_reply r;
	const char *url;
	char *body = body_of(text, &url);
	int code;

	code = ask(c, "POST", "/workers", NULL, body ? body : "{}", &r);
	cJSON_free(body);
	if (code)
		return code;
	if (o.wait) {
		code = wait_until_it_serves(c, &r, url);
		if (code)
			return code;
	}
	if (o.json)
		(void)!print_json(r.json);
	else
		print_done("added", r.json);
	admin_reply_release(&r);
	return EXIT_OK;
}

/* Drain and undrain. */
static int post(struct admin_client *c, const char *path, const char *id, const char *done,
		bool idle)
{
	struct admin_reply r;
	int code = ask(c, "POST", path, id, NULL, &r);

	if (code)
		return code;
	if (idle) {
		admin_reply_release(&r);
		code = wait_for(c, id, GOAL_IDLE);
		if (code)
			return code;
		if (o.json)
			return verb_show(c, id);
		cli_print("drained ", 8);
		cli_print(id, strlen(id));
		print_line(": the worker can be stopped");
		return EXIT_OK;
	}
	if (o.json)
		(void)!print_json(r.json);
	else
		print_done(done, r.json);
	admin_reply_release(&r);
	return EXIT_OK;
}

static int verb_drain(struct admin_client *c, const char *id)
{
	return post(c, "/workers/{id}/drain", id, "draining", o.wait);
}

static int verb_undrain(struct admin_client *c, const char *id)
{
	return post(c, "/workers/{id}/undrain", id, "undrained", false);
}

static int verb_remove(struct admin_client *c, const char *id)
{
	struct admin_reply r;
	int code = ask(c, "DELETE", o.force ? "/workers/{id}?force=true" : "/workers/{id}", id,
		       NULL, &r);
	bool gone;

	if (code)
		return code;
	gone = r.status == 200;
	if (o.wait && !gone) {
		code = wait_for(c, id, GOAL_GONE);
		if (code) {
			admin_reply_release(&r);
			return code;
		}
		gone = true;
	}
	if (o.json) {
		(void)!print_json(r.json);
	} else {
		cli_print(gone ? "removed " : "removing ", gone ? 8 : 9);
		cli_print(id, strlen(id));
		print_line(gone ? ""
				: ": draining, removed when its requests in flight have ended");
	}
	admin_reply_release(&r);
	return EXIT_OK;
}

static const struct verb {
	const char *name;
	bool ids;
	const char *wants;
	int (*run)(struct admin_client *c, const char *id);
} verbs[] = {
	{"list", false, NULL, verb_list},
	{"show", true, "a worker's name or URL", verb_show},
	{"add", true, "[NAME=]http://HOST:PORT", verb_add},
	{"drain", true, "a worker's name or URL", verb_drain},
	{"undrain", true, "a worker's name or URL", verb_undrain},
	{"remove", true, "a worker's name or URL", verb_remove},
};
#define VERBS (sizeof(verbs) / sizeof(verbs[0]))

static const struct verb *find_verb(const char *word, struct pd_msg *msg)
{
	const char *names[VERBS + 1] = {NULL}, *near;

	for (size_t i = 0; i < VERBS; i++) {
		if (strcmp(verbs[i].name, word) == 0)
			return &verbs[i];
		names[i] = verbs[i].name;
	}
	near = nearest_word(word, names);
	(void)pd_fail(msg, PD_EINVAL, "unknown action '%.60s', %s%s%s", word,
		      near ? "did you mean '" : "expected ",
		      near ? near : "list, show, add, drain, undrain or remove", near ? "'?" : "");
	return NULL;
}

/* Refuses an option of another action, which would be ignored silently. */
static int check_options(const struct verb *v, int argc, char **argv, struct pd_msg *msg)
{
	static const struct {
		const char *option, *verbs;
	} known[] = {
		{"bootstrap-port", "add"},
		{"wait", "add drain remove"},
		{"timeout-secs", "add drain remove"},
		{"force", "remove"},
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (opt_given(&command, argc, argv, known[i].option) &&
		    !strstr(known[i].verbs, v->name))
			return pd_fail(msg, PD_EINVAL, "--%s has no effect with %s, only with: %s",
				       known[i].option, v->name, known[i].verbs);
	return PD_OK;
}

static const struct verb *read_words(const struct opt_list *words, int argc, char **argv,
				     struct pd_msg *msg)
{
	const struct verb *v = words->n > 0 ? find_verb(words->items[0], msg) : NULL;

	if (words->n == 0)
		(void)pd_fail(
			msg, PD_EINVAL,
			"found no action, expected list, show, add, drain, undrain or remove");
	if (!v || check_options(v, argc, argv, msg))
		return NULL;
	if (!v->ids && words->n > 1)
		(void)pd_fail(msg, PD_EINVAL, "%s: found '%.100s', expected no more arguments",
			      v->name, words->items[1]);
	else if (v->ids && words->n < 2)
		(void)pd_fail(msg, PD_EINVAL, "%s: expected %s", v->name, v->wants);
	else
		return v;
	return NULL;
}

static int connect_to_router(struct admin_client **c, struct pd_msg *msg)
{
	struct admin_access a = {.url = o.router, .ca_file = o.ca_file};
	struct pd_msg inner = {0};
	struct buf text;
	struct span key;
	int err = PD_OK;

	buf_init(&text, KEY_MAX);
	if (o.key_file && file_read(o.key_file, &text, &inner))
		err = pd_fail(msg, PD_EINVAL, "--api-key-file: %.480s", inner.text);
	if (!err && o.key_file) {
		key = (struct span){text.data, text.len > 0 ? strcspn(text.data, "\r\n") : 0};
		key = span_trim(key);
		if (key.n == 0)
			err = pd_fail(msg, PD_EINVAL,
				      "--api-key-file: the first line of '%.200s' is empty, "
				      "expected a key",
				      o.key_file);
		else
			text.data[(size_t)(key.p - text.data) + key.n] = '\0';
		a.key = key.p;
	}
	err = err ? err : admin_client_new(c, &a, msg);
	buf_release(&text);
	return err;
}

/* All are tried; the worst code counts. */
static int run(const struct verb *v, const struct opt_list *words)
{
	struct admin_client *c;
	struct pd_msg msg = {0};
	int code = EXIT_OK, one;

	if (connect_to_router(&c, &msg))
		return cli_usage_error(&command, &msg);
	if (!v->ids)
		code = v->run(c, NULL);
	for (size_t i = 1; i < words->n; i++) {
		if (words->items[i][0] == '\0') {
			(void)pd_fail(&msg, PD_EINVAL, "%s: found an empty argument, expected %s",
				      v->name, v->wants);
			one = cli_usage_error(&command, &msg);
		} else {
			one = v->run(c, words->items[i]);
		}
		code = one > code ? one : code;
		if (one == EXIT_RUNTIME)
			break;
	}
	admin_client_free(c);
	return code;
}

int cmd_workers(int argc, char **argv)
{
	struct opt_list words = {0};
	struct pd_msg msg = {0};
	const struct verb *v;
	int code;

	memset(&o, 0, sizeof(o));
	o.router = "http://127.0.0.1:29000";
	o.timeout = 600;
	code = cli_parse(&command, argc, argv, &words);
	if (code < 0) {
		v = read_words(&words, argc, argv, &msg);
		code = v ? run(v, &words) : cli_usage_error(&command, &msg);
	}
	opt_list_release(&words);
	return code;
}
