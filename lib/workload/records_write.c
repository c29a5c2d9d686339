#include "lib/workload/records_write.h"

#include <inttypes.h>

#include "lib/base/clock.h"
#include "lib/json/scan.h"

static int put_number(struct buf *out, const char *name, int64_t v)
{
	return v < 0 ? PD_OK : buf_printf(out, "\"%s\":%" PRId64 ",", name, v);
}

static int put_ms(struct buf *out, const char *name, int64_t ns)
{
	return ns < 0 ? PD_OK
		      : buf_printf(out, "\"%s\":%" PRId64 ".%06" PRId64 ",", name, ns / NS_PER_MS,
				   ns % NS_PER_MS);
}

static int put_value(struct buf *out, const char *name, struct span json)
{
	int err = json.n > 0 ? buf_printf(out, "\"%s\":", name) : PD_OK;

	if (!err)
		err = buf_append(out, json.p, json.n);
	return err || json.n == 0 ? err : buf_putc(out, ',');
}

static int put_name(struct buf *out, const char *name, struct span text)
{
	int err = text.n > 0 ? buf_printf(out, "\"%s\":", name) : PD_OK;

	if (!err && text.n > 0)
		err = json_quote(out, text.p, text.n);
	return err || text.n == 0 ? err : buf_putc(out, ',');
}

static int put_ids(struct buf *out, const struct workload_request *r)
{
	int err = buf_puts(out, "\"hash_ids\":[");

	for (uint32_t k = 0; !err && k < r->nhash; k++)
		err = buf_printf(out, "%s%" PRIu64, k ? "," : "", r->hash_ids[k]);
	return err ? err : buf_puts(out, "],");
}

static int put_record(const struct workload_request *r, struct buf *out)
{
	int err = buf_putc(out, '{');

	err = err ? err : put_ms(out, "timestamp", r->arrival_ns);
	err = err ? err : put_ms(out, "delay", r->delay_ns);
	err = err ? err : put_number(out, "input_length", r->input_tokens);
	err = err ? err : put_number(out, "output_length", r->output_tokens);
	if (!err && r->ordered)
		err = put_name(out, "session_id", r->session);
	if (!err && r->ordered)
		err = put_number(out, "turn", r->turn);
	if (!err && (!r->ordered || !span_eq(r->key, r->session)))
		err = put_name(out, "prompt_cache_key", r->key);
	err = err ? err : put_number(out, "prefix_group", r->group);
	err = err ? err : put_value(out, "prompt", r->prompt);
	err = err ? err : put_value(out, "messages", r->messages);
	if (!err && r->extra.n > 2) {
		err = buf_append(out, r->extra.p + 1, r->extra.n - 2);
		err = err ? err : buf_putc(out, ',');
	}
	if (!err && r->nhash > 0)
		err = put_ids(out, r);
	return err ? err : buf_printf(out, "\"block_tokens\":%" PRIu32 "}\n", r->block_tokens);
}

int records_write(const struct workload *w, struct buf *out)
{
	int err = PD_OK;

	for (size_t i = 0; !err && i < w->n; i++)
		err = put_record(&w->req[i], out);
	return err;
}
