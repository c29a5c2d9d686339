/*
 * Arrivals are wall clock, the engine's times a monotonic one: the smallest distance between
 * arrival and queue aligns them. What remains of it is the engine's own loop, which the model has.
 */
#include "sim/fit/measured.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/file.h"
#include "lib/workload/capture_timed.h"
#include "sim/engine/hardware.h"

#define FILE_MAX ((size_t)1 << 30)

static const cJSON *at_path(const cJSON *o, const char *path)
{
	char part[64];

	while (o && *path) {
		size_t n = strcspn(path, ".");

		(void)snprintf(part, sizeof(part), "%.*s", (int)n, path);
		o = cJSON_GetObjectItemCaseSensitive(o, part);
		path += n + (path[n] == '.');
	}
	return o;
}

static bool number_at(const cJSON *o, const char *path, double *out)
{
	const cJSON *v = at_path(o, path);

	if (!cJSON_IsNumber(v) || !isfinite(v->valuedouble))
		return false;
	*out = v->valuedouble;
	return true;
}

static void count_at(const cJSON *o, const char *path, uint32_t *out)
{
	double v;

	if (number_at(o, path, &v) && v >= 1 && v <= KVPOOL_BLOCKS_MAX && v == floor(v))
		*out = (uint32_t)v;
}

static void text_at(const cJSON *o, const char *path, char out[PROFILE_TEXT_MAX])
{
	const cJSON *v = at_path(o, path);

	if (cJSON_IsString(v))
		(void)snprintf(out, PROFILE_TEXT_MAX, "%s", v->valuestring);
}

static int note(struct measured *m, const char *text)
{
	int err = buf_puts(&m->notes, text);

	return err ? err : buf_putc(&m->notes, '\n');
}

static void read_meta_object(struct measured *m, const cJSON *o)
{
	struct profile *p = &m->profile;
	const cJSON *v;
	char version[PROFILE_TEXT_MAX] = "";

	text_at(o, "model", p->model);
	text_at(o, "hardware.device_name", p->gpu);
	text_at(o, "vllm_version", version);
	if (version[0])
		(void)snprintf(p->engine, sizeof(p->engine), "vllm %.100s", version);
	count_at(o, "engine_kwargs.max_num_seqs", &p->max_num_seqs);
	count_at(o, "engine_kwargs.max_num_batched_tokens", &p->max_num_batched_tokens);
	count_at(o, "engine_kwargs.tensor_parallel_size", &p->tensor_parallel);
	count_at(o, "engine_kwargs.data_parallel_size", &p->data_parallel);
	v = at_path(o, "engine_kwargs.enable_expert_parallel");
	p->expert_parallel = cJSON_IsTrue(v);
	count_at(o, "kv_cache.block_size", &p->block_size);
	count_at(o, "kv_cache.num_gpu_blocks", &p->num_blocks);
	m->has_blocks = p->num_blocks > 0;
	v = at_path(o, "resolved_config.scheduler_config.async_scheduling");
	if (cJSON_IsBool(v))
		m->engine.sched.async_scheduling = cJSON_IsTrue(v);
	v = at_path(o, "kv_cache.enable_prefix_caching");
	if (cJSON_IsBool(v))
		m->engine.sched.prefix_caching = cJSON_IsTrue(v);
	v = at_path(o, "resolved_config.scheduler_config.scheduler_reserve_full_isl");
	if (cJSON_IsBool(v))
		m->engine.sched.no_full_sequence_test = cJSON_IsFalse(v);
	count_at(o, "resolved_config.scheduler_config.long_prefill_token_threshold",
		 &m->engine.sched.long_prefill_token_threshold);
}

/* FILE.meta.json beside FILE.jsonl; its absence is a note. */
static int read_meta(struct measured *m, const char *path, struct pd_msg *msg)
{
	size_t n = strlen(path), cut = n > 6 && strcmp(path + n - 6, ".jsonl") == 0 ? n - 6 : n;
	struct pd_msg inner = {.text = ""};
	char name[4096];
	struct buf text;
	cJSON *o;

	(void)snprintf(name, sizeof(name), "%.*s.meta.json", (int)(cut < 4000 ? cut : 4000), path);
	buf_init(&text, FILE_MAX);
	if (file_read(name, &text, &inner)) {
		buf_release(&text);
		return note(m, "no .meta.json beside the file: limits of the engine are defaults");
	}
	o = cJSON_ParseWithLength(text.data ? text.data : "", text.len);
	buf_release(&text);
	if (!cJSON_IsObject(o)) {
		cJSON_Delete(o);
		return pd_fail(msg, PD_EINVAL, "%s: found no JSON object, expected one", name);
	}
	m->has_meta = true;
	read_meta_object(m, o);
	cJSON_Delete(o);
	return PD_OK;
}

static int add(struct measured *m, size_t *cap, const struct fit_request *r, struct pd_msg *msg)
{
	size_t more = *cap ? *cap * 2 : 256;
	struct fit_request *grown;

	if (m->n == *cap) {
		grown = reallocarray(m->r, more, sizeof(*grown));
		if (!grown)
			return pd_fail(msg, PD_ENOMEM, "out of memory");
		m->r = grown;
		*cap = more;
	}
	m->r[m->n++] = *r;
	return PD_OK;
}

struct row {
	double arrival, queued, first, last;
};

static int read_line(struct measured *m, const char *path, size_t line, const char *text, size_t n,
		     struct row *row, size_t *cap, struct pd_msg *msg)
{
	static const char *const keys[] = {"input_toks",     "output_toks",   "arrival_time",
					   "first_token_ts", "last_token_ts", "queued_ts"};
	double v[6] = {0};
	struct fit_request r = {0};
	cJSON *o = cJSON_ParseWithLength(text, n);
	int err = PD_OK;

	if (!cJSON_IsObject(o))
		err = pd_fail(msg, PD_EINVAL, "%s:%zu:1: found no JSON object, expected one", path,
			      line);
	for (size_t i = 0; !err && i < 6; i++)
		if (!number_at(o, keys[i], &v[i]))
			err = pd_fail(msg, PD_EINVAL,
				      "%s:%zu:1: '%s': found nothing, expected a number", path,
				      line, keys[i]);
	cJSON_Delete(o);
	if (!err && (v[0] < 1 || v[1] < 1 || v[0] > 1e8 || v[1] > 1e8))
		err = pd_fail(msg, PD_EINVAL, "%s:%zu:1: found %g and %g tokens, expected 1 to 1e8",
			      path, line, v[0], v[1]);
	if (!err && (v[3] < v[5] || v[4] < v[3]))
		err = pd_fail(msg, PD_EINVAL,
			      "%s:%zu:1: found times out of order, expected queued_ts <= "
			      "first_token_ts <= last_token_ts",
			      path, line);
	if (err)
		return err;
	r.prompt = (uint32_t)v[0];
	r.output = (uint32_t)v[1];
	*row = (struct row){.arrival = v[2], .queued = v[5], .first = v[3], .last = v[4]};
	return add(m, cap, &r, msg);
}

static int by_arrival(const void *a, const void *b)
{
	const struct fit_request *x = a, *y = b;

	return x->arrival_ns < y->arrival_ns ? -1 : x->arrival_ns > y->arrival_ns;
}

static size_t lines_of(const struct buf *text)
{
	size_t n = 1;

	for (size_t i = 0; i < text->len; i++)
		n += text->data[i] == '\n';
	return n;
}

static int read_lines(struct measured *m, const char *path, const struct buf *text,
		      struct pd_msg *msg)
{
	const char *at = text->data, *end = at + text->len, *stop;
	size_t cap = 0, nrows = 0, line = 0;
	struct row *row;
	double offset = INFINITY, begin = INFINITY;
	int err = PD_OK;

	row = reallocarray(NULL, lines_of(text) + 1, sizeof(*row));
	if (!row)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	for (; !err && at < end; at = stop + 1) {
		line++;
		stop = memchr(at, '\n', (size_t)(end - at));
		stop = stop ? stop : end;
		if (span_trim((struct span){at, (size_t)(stop - at)}).n == 0)
			continue;
		err = read_line(m, path, line, at, (size_t)(stop - at), &row[nrows], &cap, msg);
		if (err)
			break;
		offset = fmin(offset, row[nrows].queued - row[nrows].arrival);
		begin = fmin(begin, row[nrows].arrival);
		nrows++;
	}
	for (size_t i = 0; !err && i < nrows; i++) {
		m->r[i].arrival_ns = llround((row[i].arrival - begin) * 1e9);
		m->r[i].ttft_ms = (row[i].first - row[i].arrival - offset) * 1e3;
		m->r[i].e2e_ms = (row[i].last - row[i].arrival - offset) * 1e3;
	}
	free(row);
	if (!err)
		qsort(m->r, m->n, sizeof(*m->r), by_arrival);
	return err;
}

/* vllm bench's lists, in seconds: start_times, input_lens, output_lens, ttfts, itls. */
static int read_bench(struct measured *m, const char *path, const cJSON *o, struct pd_msg *msg)
{
	static const char *const keys[] = {"start_times", "input_lens", "output_lens", "ttfts",
					   "itls"};
	const cJSON *list[5];
	double begin = INFINITY;
	size_t cap = 0, n;
	int err = PD_OK;

	for (size_t k = 0; k < 5; k++) {
		list[k] = cJSON_GetObjectItemCaseSensitive(o, keys[k]);
		if (!cJSON_IsArray(list[k]))
			return pd_fail(msg, PD_EINVAL,
				       "%s: '%s': found nothing, expected a list: the result of a "
				       "benchmark with --save-detailed",
				       path, keys[k]);
		if (cJSON_GetArraySize(list[k]) != cJSON_GetArraySize(list[0]))
			return pd_fail(msg, PD_EINVAL, "%s: '%s': found %d entries, expected %d",
				       path, keys[k], cJSON_GetArraySize(list[k]),
				       cJSON_GetArraySize(list[0]));
	}
	n = (size_t)cJSON_GetArraySize(list[0]);
	const cJSON *v[5] = {list[0]->child, list[1]->child, list[2]->child, list[3]->child,
			     list[4]->child};

	for (size_t i = 0; i < n; i++)
		begin = fmin(begin, cJSON_GetNumberValue(cJSON_GetArrayItem(list[0], (int)i)));
	for (size_t i = 0; !err && i < n; i++) {
		double start = cJSON_GetNumberValue(v[0]), in = cJSON_GetNumberValue(v[1]),
		       out = cJSON_GetNumberValue(v[2]), ttft = cJSON_GetNumberValue(v[3]),
		       span = 0;
		const cJSON *gap;

		cJSON_ArrayForEach(gap, v[4]) span += cJSON_GetNumberValue(gap);
		for (size_t k = 0; k < 5; k++)
			v[k] = v[k]->next;
		/* Failed requests have no tokens. */
		if (!(in >= 1 && out >= 1 && ttft > 0 && isfinite(start) && isfinite(span)))
			continue;
		err = add(m, &cap,
			  &(struct fit_request){.arrival_ns = llround((start - begin) * 1e9),
						.prompt = (uint32_t)in,
						.output = (uint32_t)out,
						.ttft_ms = ttft * 1e3,
						.e2e_ms = (ttft + span) * 1e3},
			  msg);
	}
	if (!err)
		qsort(m->r, m->n, sizeof(*m->r), by_arrival);
	return err;
}

/* One engine of the capture: its requests as they were sent to it. */
static int read_capture(struct measured *m, const char *path, struct pd_msg *msg)
{
	struct capture_timed *row;
	size_t n, cap = 0;
	char *name, text[400];
	int err = capture_timed_read(path, 0, &row, &n, &name, msg);

	if (err)
		return err;
	for (size_t i = 0; !err && i < n; i++)
		err = add(m, &cap,
			  &(struct fit_request){.arrival_ns = row[i].sent_ns - row[0].sent_ns,
						.prompt = (uint32_t)row[i].prompt,
						.output = (uint32_t)row[i].output,
						.ttft_ms = (double)row[i].first_ns / 1e6,
						.e2e_ms = (double)row[i].end_ns / 1e6},
			  msg);
	(void)snprintf(text, sizeof(text),
		       "a capture: streamed requests of the busiest worker, %.200s, with token "
		       "counts and without retries",
		       name);
	if (!err && note(m, text))
		err = pd_fail(msg, PD_ENOMEM, "out of memory");
	free(row);
	free(name);
	return err;
}

static void settle(struct measured *m, const char *path)
{
	struct profile *p = &m->profile;
	struct sched_config *s = &m->engine.sched;
	struct hardware_setup h = {0};
	const char *file = strrchr(path, '/');

	file = file ? file + 1 : path;
	if (p->max_num_seqs)
		s->max_num_seqs = p->max_num_seqs;
	if (p->max_num_batched_tokens)
		s->max_num_batched_tokens = p->max_num_batched_tokens;
	if (p->block_size)
		s->block_size = p->block_size;
	p->block_size = s->block_size;
	/* Without a device's name the file's name may have it. */
	if (!p->gpu[0] && hardware_gpu_find(file))
		(void)snprintf(p->gpu, sizeof(p->gpu), "%s", hardware_gpu_find(file)->name);
	if (!p->model[0] && hardware_model_find(file))
		(void)snprintf(p->model, sizeof(p->model), "%s", hardware_model_find(file)->name);
	h = (struct hardware_setup){.gpu = hardware_gpu_find(p->gpu),
				    .model = hardware_model_find(p->model),
				    .tensor = p->tensor_parallel,
				    .data = p->data_parallel,
				    .expert = p->expert_parallel,
				    .weight_bytes = 2};
	if (!m->has_blocks && h.gpu && h.model)
		p->num_blocks = hardware_blocks(&h, s->block_size);
	s->num_blocks = p->num_blocks > 1 ? p->num_blocks : 0;
	if (!m->has_blocks)
		(void)!note(m, s->num_blocks
				       ? "KV blocks are not stated: those that fit by data sheet"
				       : "KV blocks are not stated: taken as unlimited");
	m->engine.ranks = p->data_parallel;
	m->engine.lockstep = p->expert_parallel && p->data_parallel > 1;
	if (!p->name[0])
		(void)snprintf(p->name, sizeof(p->name), "%.100s", file);
}

int measured_load(struct measured *m, const char *path, struct pd_msg *msg)
{
	struct buf text;
	cJSON *o;
	int err;

	*m = (struct measured){.engine = {.sched = SCHED_DEFAULTS, .ranks = 1},
			       .profile = PROFILE_DEFAULTS};
	m->engine.sched.max_num_batched_tokens = 2048;
	buf_init(&m->notes, 65536);
	buf_init(&text, FILE_MAX);
	if (capture_file_is(path)) {
		err = read_capture(m, path, msg);
		goto read;
	}
	err = file_read(path, &text, msg);
	if (!err && text.len == 0)
		err = pd_fail(msg, PD_EINVAL, "%s: found an empty file, expected measured requests",
			      path);
	if (!err) {
		o = memchr(text.data, '{', 1) ? cJSON_ParseWithLength(text.data, text.len) : NULL;
		if (o && cJSON_GetObjectItemCaseSensitive(o, "ttfts"))
			err = read_bench(m, path, o, msg);
		else
			err = read_lines(m, path, &text, msg);
		cJSON_Delete(o);
	}
read:
	buf_release(&text);
	if (!err && m->n == 0)
		err = pd_fail(msg, PD_EINVAL, "%s: found no request, expected at least one", path);
	if (!err)
		err = read_meta(m, path, msg);
	if (err) {
		measured_release(m);
		return err;
	}
	settle(m, path);
	return PD_OK;
}

void measured_release(struct measured *m)
{
	free(m->r);
	buf_release(&m->notes);
	m->r = NULL;
	m->n = 0;
}
