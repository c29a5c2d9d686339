/* A run from its options to its outcome; the transports do the rest. */
#include "lib/load/load.h"

#include <stdlib.h>
#include <sys/resource.h>

#include "lib/base/clock.h"
#include "lib/load/load_core.h"
#include "lib/load/curl_run.h"
#include "lib/load/curl_slot.h"
#include "lib/load/fibers.h"

#define SPARE_FDS 64
#define SINGLE_MS 30000L /* a request beside the run */

static size_t in_flight_limit(const struct load_options *o)
{
	struct rlimit lim;
	size_t most = o->transport == LOAD_PDCTL ? FIBERS_MAX : LOAD_IN_FLIGHT_MAX;

	if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur != RLIM_INFINITY &&
	    lim.rlim_cur < most + SPARE_FDS)
		most = lim.rlim_cur > 2 * SPARE_FDS ? (size_t)lim.rlim_cur - SPARE_FDS : SPARE_FDS;
	return o->max_concurrency > 0 && (size_t)o->max_concurrency < most
		       ? (size_t)o->max_concurrency
		       : most;
}

static int check(const struct load_options *o, size_t in_flight_max, struct pd_msg *msg)
{
	if (o->max_concurrency > 0 && (size_t)o->max_concurrency > in_flight_max)
		return pd_fail(msg, PD_EINVAL,
			       "--max-concurrency: found %lld, expected at most %zu with this "
			       "transport and open-file limit (ulimit -n)",
			       (long long)o->max_concurrency, in_flight_max);
	if (o->transport == LOAD_CURL && o->ntargets > 1)
		return pd_fail(msg, PD_EINVAL, "--ab: needs --transport pdctl");
	if (o->transport == LOAD_PDCTL && (o->proxy || o->http2))
		return pd_fail(msg, PD_EINVAL, "%s: needs --transport curl",
			       o->proxy ? "--proxy" : "--http2");
	return PD_OK;
}

int load_run(const struct load_options *o, const struct load_item *items,
	     const struct schedule_input *order, struct load_outcome *out, struct pd_msg *msg)
{
	size_t in_flight_max = in_flight_limit(o);
	int64_t cpu = clock_cpu();
	struct load_core c = {0};
	int err;

	*out = (struct load_outcome){0};
	pulse_init(&out->pulse, 0);
	err = check(o, in_flight_max, msg);
	if (err)
		return err;
	err = load_core_init(&c, o, items, order, in_flight_max, out);
	if (!err)
		err = o->transport == LOAD_CURL ? curl_run(&c, msg) : fibers_run(&c, msg);
	out->origin_ns = c.origin;
	out->wall_ns = clock_now() - c.origin;
	out->cpu_ns = clock_cpu() - cpu;
	out->saturated = c.enough;
	out->stopped = !c.enough && c.o && load_core_stopping(&c);
	load_core_release(&c);
	if (err && msg && !msg->text[0])
		(void)pd_fail(msg, err, "the load engine stopped: %s", pd_err_text(err));
	if (err)
		load_outcome_release(out);
	return err;
}

void load_outcome_release(struct load_outcome *out)
{
	for (size_t i = 0; i < out->n; i++)
		free((void *)(uintptr_t)out->record[i].gap);
	for (size_t i = 0; i < out->nowned; i++)
		free(out->owned[i]);
	free(out->record);
	free(out->owned);
	pulse_release(&out->pulse);
	*out = (struct load_outcome){0};
	pulse_init(&out->pulse, 0);
}

/* ---- single requests ---- */

static size_t on_single_body(char *p, size_t size, size_t n, void *arg)
{
	return buf_append(arg, p, size * n) ? 0 : size * n;
}

static int single(const struct load_options *o, const char *path, const struct span *json,
		  int *status, struct buf *body, struct pd_msg *msg)
{
	struct slot_common common;
	struct slot *s;
	CURLcode code;
	long http = 0;
	int err = slot_common_init(&common, o, path, msg);

	if (err)
		return err;
	s = slot_new(o, &common, NULL);
	if (!s) {
		slot_common_release(&common);
		return PD_ENOMEM;
	}
	curl_easy_setopt(s->easy, CURLOPT_HTTPHEADER, common.headers);
	curl_easy_setopt(s->easy, CURLOPT_TIMEOUT_MS, SINGLE_MS);
	curl_easy_setopt(s->easy, CURLOPT_HEADERFUNCTION, NULL);
	curl_easy_setopt(s->easy, CURLOPT_HEADERDATA, NULL);
	curl_easy_setopt(s->easy, CURLOPT_WRITEFUNCTION, on_single_body);
	curl_easy_setopt(s->easy, CURLOPT_WRITEDATA, body);
	if (json) {
		curl_easy_setopt(s->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)json->n);
		curl_easy_setopt(s->easy, CURLOPT_POSTFIELDS, json->p);
	}
	code = curl_easy_perform(s->easy);
	if (code != CURLE_OK)
		err = pd_fail(msg, PD_EIO, "cannot %s '%s': %s", json ? "post to" : "get",
			      common.url, s->why[0] ? s->why : curl_easy_strerror(code));
	(void)curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &http);
	*status = (int)http;
	slot_free(s);
	slot_common_release(&common);
	return err;
}

int load_get(const struct load_options *o, const char *path, int *status, struct buf *body,
	     struct pd_msg *msg)
{
	return single(o, path, NULL, status, body, msg);
}

int load_post(const struct load_options *o, const char *path, struct span json, int *status,
	      struct buf *body, struct pd_msg *msg)
{
	return single(o, path, &json, status, body, msg);
}
