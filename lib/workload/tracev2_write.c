#include "lib/workload/tracev2_write.h"

#include <inttypes.h>

static const char head[] =
	"request_id,client_id,tenant_id,slo_class,session_id,round_index,prefix_group,"
	"prefix_length,streaming,input_tokens,output_tokens,text_tokens,image_tokens,audio_tokens,"
	"video_tokens,reason_ratio,model,deadline_us,server_input_tokens,arrival_time_us,"
	"send_time_us,first_chunk_time_us,last_chunk_time_us,num_chunks,status,error_message,"
	"finish_reason,think_time_us,block_tokens,hash_ids\n";

static int put_cell(struct buf *out, struct span text)
{
	int err;

	if (text.n == 0)
		return PD_OK;
	if (!memchr(text.p, ',', text.n) && !memchr(text.p, '"', text.n) &&
	    !memchr(text.p, '\n', text.n) && !memchr(text.p, '\r', text.n))
		return buf_append(out, text.p, text.n);
	err = buf_putc(out, '"');
	for (size_t i = 0; !err && i < text.n; i++) {
		if (text.p[i] == '"')
			err = buf_putc(out, '"');
		if (!err)
			err = buf_putc(out, text.p[i]);
	}
	return err ? err : buf_putc(out, '"');
}

static int put_row(const struct workload_request *r, size_t i, int64_t output, struct buf *out)
{
	size_t bytes = r->messages.n > 0 ? r->messages.n : r->prompt.n;
	int64_t input = r->input_tokens >= 0 ? r->input_tokens
			: bytes > 0	     ? (int64_t)((bytes + 3) / 4)
					     : (int64_t)r->nhash * r->block_tokens;
	int64_t at = r->arrival_ns > 0 ? r->arrival_ns / 1000 : 0;
	int err = buf_printf(out, "%zu,,,,", i);

	if (!err && r->ordered)
		err = put_cell(out, r->session);
	if (!err)
		err = buf_printf(out,
				 ",%" PRId64 ",,0,true,%" PRId64 ",%" PRId64 ",%" PRId64
				 ",0,0,0,0,,0,0,%" PRId64 ",0,0,0,0,ok,,,",
				 r->ordered ? r->turn : 0, input,
				 r->output_tokens > 0 ? r->output_tokens : output, input, at);
	if (!err && r->delay_ns >= 0)
		err = buf_printf(out, "%" PRId64, r->delay_ns / 1000);
	if (!err)
		err = r->nhash > 0 ? buf_printf(out, ",%" PRIu32 ",", r->block_tokens)
				   : buf_puts(out, ",,");
	for (uint32_t k = 0; !err && k < r->nhash; k++)
		err = buf_printf(out, "%s%" PRIu64, k ? " " : "", r->hash_ids[k]);
	return err ? err : buf_putc(out, '\n');
}

int tracev2_write(const struct workload *w, int64_t output_tokens, struct buf *header,
		  struct buf *rows)
{
	int err = buf_puts(header, "trace_version: 3\ntime_unit: microseconds\nmode: generated\n"
				   "warm_up_requests: 0\n");

	if (!err)
		err = buf_puts(rows, head);
	for (size_t i = 0; !err && i < w->n; i++)
		err = put_row(&w->req[i], i, output_tokens, rows);
	return err;
}
