/*
 * TraceV2 of BLIS. The rows can be read without their header; with it, the block size of the server
 * and the growth of sessions are known. Blocks are named so that what a prefix group, or the rounds
 * of a growing session, share has equal names.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/file.h"
#include "lib/base/rng.h"
#include "lib/base/yamlpos.h"
#include "lib/workload/format/formats.h"

#define HEADER_MAX   ((size_t)1 << 20)
#define BLOCK_TOKENS 16u
#define TOKENS_MAX   INT64_C(100000000)

static uint64_t name_hash(const char *kind, struct span name)
{
	uint64_t h = (uint64_t)(unsigned char)kind[0] << 56;

	for (size_t i = 0; i < name.n; i++) {
		h ^= (unsigned char)name.p[i];
		h = rng_splitmix(&h);
	}
	return rng_splitmix(&h);
}

static int add_blocks(struct format_reader *rd, struct workload_request *r, uint64_t owner,
		      uint64_t n)
{
	int err = PD_OK;

	for (uint64_t i = 0; !err && i < n; i++) {
		uint64_t state = owner + (uint64_t)r->nhash * UINT64_C(0x9e3779b97f4a7c15);

		err = format_add_id(rd, r, rng_splitmix(&state));
	}
	return err;
}

/* Our own column: numbers with spaces between them. */
static int own_ids(struct format_reader *rd, struct workload_request *r, struct span cell)
{
	const char *p = cell.p, *end = cell.p + cell.n;
	int err = PD_OK;

	while (!err && p < end) {
		uint64_t id = 0;
		const char *start = p;

		for (; p < end && *p >= '0' && *p <= '9'; p++)
			if (__builtin_mul_overflow(id, 10u, &id) ||
			    __builtin_add_overflow(id, (uint64_t)(*p - '0'), &id))
				break;
		if (p == start || (p < end && *p != ' '))
			return format_wrong(rd, start,
					    "column \"hash_ids\": expected numbers of at most 64 "
					    "bits with spaces between them");
		err = format_add_id(rd, r, id);
		while (p < end && *p == ' ')
			p++;
	}
	return err;
}

static int name_blocks(struct format_reader *rd, struct workload_request *r, int64_t prefix)
{
	struct span own = format_cell(rd, "hash_ids"), group = format_cell(rd, "prefix_group");
	bool grows = rd->opt.tracev2_grows && r->session.n > 0;
	struct span owner = grows ? r->session : format_cell(rd, "request_id");
	int64_t block;
	int err = format_cell_count(rd, "block_tokens", &block);

	if (err)
		return err;
	if (own.n > 0) {
		if (block > 0 && block <= UINT32_MAX && rd->opt.block_tokens == 0)
			r->block_tokens = (uint32_t)block;
		return own_ids(rd, r, own);
	}
	if ((group.n == 0 || prefix <= 0) && !grows)
		return PD_OK;
	if (r->input_tokens > TOKENS_MAX)
		return format_wrong(rd, rd->record.p, "more than %lld tokens",
				    (long long)TOKENS_MAX);
	if (group.n > 0 && prefix > 0)
		err = add_blocks(rd, r, name_hash("group", group),
				 (uint64_t)prefix / r->block_tokens);
	return err ? err
		   : add_blocks(rd, r, name_hash(grows ? "session" : "request", owner),
				(uint64_t)r->input_tokens / r->block_tokens - r->nhash);
}

static int set_arrival(struct format_reader *rd, struct workload_request *r)
{
	int64_t sent;
	int err = format_cell_time(rd, "arrival_time_us", WORKLOAD_UNIT_US, &r->arrival_ns);

	if (!err)
		err = format_cell_time(rd, "send_time_us", WORKLOAD_UNIT_US, &sent);
	if (!err && sent > 0)
		r->arrival_ns = sent;
	return err;
}

static int row(struct format_reader *rd)
{
	static const char *const known[] = {
		"client_id",	"streaming",	"text_tokens",	       "image_tokens",
		"audio_tokens", "video_tokens", "first_chunk_time_us", "last_chunk_time_us",
		"num_chunks",	"status",	"error_message",       "finish_reason",
		"x_request_id"};
	struct span pause = format_cell(rd, "think_time_us");
	struct workload_request r;
	int64_t prefix, server;
	int err;

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		(void)format_cell(rd, known[i]);
	format_request(rd, &r);
	if (rd->opt.tracev2_block > 0 && rd->opt.block_tokens == 0)
		r.block_tokens = rd->opt.tracev2_block;
	r.session = format_cell(rd, "session_id");
	err = format_cell_count(rd, "round_index", &r.turn);
	if (!err)
		err = format_cell_count(rd, "prefix_length", &prefix);
	if (!err)
		err = format_cell_count(rd, "input_tokens", &r.input_tokens);
	if (!err)
		err = format_cell_count(rd, "server_input_tokens", &server);
	if (!err)
		err = format_cell_count(rd, "output_tokens", &r.output_tokens);
	if (!err)
		err = set_arrival(rd, &r);
	if (!err && pause.n > 0 && format_pause(pause, WORKLOAD_UNIT_US, &r.delay_ns))
		err = format_wrong(rd, pause.p,
				   "column \"think_time_us\": expected a time, 0 or more");
	if (!err && r.input_tokens < 0)
		err = format_wrong(rd, rd->record.p, "column \"input_tokens\" is empty");
	if (err)
		return err;
	if (format_cell(rd, "prefix_group").n == 0)
		prefix = 0;
	if (prefix > 0 && r.input_tokens <= TOKENS_MAX && prefix <= TOKENS_MAX)
		r.input_tokens += prefix;
	else if (server > 0)
		r.input_tokens = server;
	err = name_blocks(rd, &r, prefix);
	return err ? err : format_add(rd, &r);
}

static const char *const columns[] = {"request_id",   "round_index",	     "prefix_group",
				      "input_tokens", "output_tokens",	     "arrival_time_us",
				      "send_time_us", "server_input_tokens", NULL};

const struct workload_format format_tracev2_rows = {
	.name = "tracev2-rows",
	.title = "the rows of a TraceV2 without their header",
	.marks = "columns request_id, round_index, prefix_group, input_tokens, arrival_time_us ...",
	.times = "us",
	.origin = "BLIS (inference-sim) TraceV2",
	.shape = FORMAT_CSV,
	.block_tokens = BLOCK_TOKENS,
	.columns = columns,
	.row = row,
	.example = "request_id,client_id,tenant_id,slo_class,session_id,round_index,prefix_group,"
		   "prefix_length,streaming,input_tokens,output_tokens,text_tokens,image_tokens,"
		   "audio_tokens,video_tokens,reason_ratio,model,deadline_us,server_input_tokens,"
		   "arrival_time_us,send_time_us,first_chunk_time_us,last_chunk_time_us,num_chunks,"
		   "status,error_message,finish_reason,think_time_us\n"
		   "0,c,t,standard,s,0,g,32,true,16,5,16,0,0,0,0,m,0,0,1000,1200,0,0,0,ok,,,\n"
		   "1,c,t,standard,s,1,g,32,true,40,6,40,0,0,0,0,m,0,0,2000,0,0,0,0,ok,,,500\n",
};

/* ---- with the header ---- */

static bool ends(struct span path, const char *end)
{
	size_t n = strlen(end);

	return path.n >= n && memcmp(path.p + path.n - n, end, n) == 0;
}

static bool starts(struct span path)
{
	return ends(path, ".yaml") || ends(path, ".yml");
}

/* The rows lie beside the header, under its name. */
static char *rows_path(const char *path)
{
	static const char *const kinds[] = {"csv", "csv.gz", "csv.zst", NULL};
	size_t stem = (size_t)(strrchr(path, '.') - path);
	char *out = NULL;

	for (size_t i = 0; kinds[i]; i++) {
		free(out);
		if (asprintf(&out, "%.*s.%s", (int)stem, path, kinds[i]) < 0)
			return NULL;
		if (access(out, F_OK) == 0)
			return out;
	}
	free(out);
	return asprintf(&out, "%.*s.csv", (int)stem, path) < 0 ? NULL : out;
}

static const char *value(const struct yamlpos *pos, const char *path)
{
	const struct yamlpos_entry *e = yamlpos_find(pos, path);

	return e && e->scalar ? e->scalar : "";
}

static int wrong_header(struct format_reader *rd, const struct yamlpos *pos, const char *path,
			const char *expected)
{
	const struct yamlpos_entry *e = yamlpos_find(pos, path);

	return pd_fail(rd->msg, PD_EINVAL, "%s:%zu:%zu: '%s' is '%.40s', expected %s", rd->name,
		       e ? e->value_line : 1, e ? e->value_column : 1, path, value(pos, path),
		       expected);
}

static int read_header(struct format_reader *rd, const char *path, struct workload_options *opt)
{
	struct yamlpos pos = {0};
	const char *block;
	struct buf text;
	int64_t n;
	int err;

	buf_init(&text, HEADER_MAX);
	err = file_read(path, &text, rd->msg);
	if (!err)
		err = yamlpos_scan(&pos, text.data ? text.data : "", text.len, path, rd->msg);
	if (err)
		goto out;
	if (strcmp(value(&pos, "trace_version"), "2") != 0 &&
	    strcmp(value(&pos, "trace_version"), "3") != 0)
		err = wrong_header(rd, &pos, "trace_version", "2 or 3, the header of a TraceV2");
	else if (yamlpos_find(&pos, "time_unit") &&
		 strcmp(value(&pos, "time_unit"), "microseconds") != 0)
		err = wrong_header(rd, &pos, "time_unit", "microseconds");
	block = value(&pos, "server.block_size");
	if (!err && block[0]) {
		if (json_int(span_of(block), &n) || n < 1 || n > 65536)
			err = wrong_header(rd, &pos, "server.block_size",
					   "a whole number from 1 to 65536");
		else
			opt->tracev2_block = (uint32_t)n;
	}
	opt->tracev2_grows = strcmp(value(&pos, "session_context_growth"), "accumulate") == 0;
	if (!err && strcmp(value(&pos, "warm_up_requests"), "") != 0 &&
	    strcmp(value(&pos, "warm_up_requests"), "0") != 0)
		opt->tracev2_warm = true;
out:
	yamlpos_release(&pos);
	buf_release(&text);
	return err;
}

static int open_trace(struct format_reader *rd, const char *path)
{
	struct workload_options opt = rd->opt;
	struct workload made;
	char *rows = NULL;
	int err = read_header(rd, path, &opt);

	workload_init(&made);
	if (!err) {
		rows = rows_path(path);
		err = rows ? PD_OK : PD_ENOMEM;
	}
	opt.format = format_tracev2_rows.name;
	if (!err)
		err = workload_read(&made, rows, &opt, rd->msg);
	free(rows);
	if (err)
		return err;
	workload_release(rd->w);
	*rd->w = made;
	rd->taken = true;
	rd->w->format = "tracev2";
	return opt.tracev2_warm ? format_note(rd, "the header's warm_up_requests are read like the "
						  "others")
				: PD_OK;
}

static bool never(const struct json_object *o)
{
	(void)o;
	return false;
}

const struct workload_format format_tracev2 = {
	.name = "tracev2",
	.title = "a TraceV2: header, and rows in the .csv beside it (also .gz, .zst)",
	.marks = "a YAML file with `trace_version`",
	.times = "us",
	.origin = "BLIS (inference-sim) TraceV2",
	.shape = FORMAT_OTHER,
	.is = never,
	.starts = starts,
	.open = open_trace,
};
