/* Traces as CSV files: Azure, BurstGPT in both forms, Vidur, and tables of prompts. Columns are
 * found by their names. */
#include "lib/workload/format/formats.h"

static int add(struct format_reader *rd, struct workload_request *r, const char *input,
	       const char *output)
{
	int err = format_cell_count(rd, input, &r->input_tokens);

	if (!err)
		err = format_cell_count(rd, output, &r->output_tokens);
	if (!err && r->input_tokens < 0)
		err = format_wrong(rd, rd->record.p, "column \"%s\" is empty", input);
	return err ? err : format_add(rd, r);
}

static int azure_row(struct format_reader *rd)
{
	struct span at = format_cell(rd, "TIMESTAMP");
	struct workload_request r;

	format_request(rd, &r);
	if (format_date(at, &r.arrival_ns))
		return format_wrong(rd, at.p,
				    "column \"TIMESTAMP\": found '%.*s', expected a date and time "
				    "such as 2023-11-16 18:15:46.6805900",
				    at.n < 40 ? (int)at.n : 40, at.p);
	rd->since_1970 = true;
	return add(rd, &r, "ContextTokens", "GeneratedTokens");
}

static const char *const azure_columns[] = {"TIMESTAMP", "ContextTokens", "GeneratedTokens", NULL};

const struct workload_format format_azure = {
	.name = "azure",
	.title = "arrivals and lengths",
	.marks = "columns TIMESTAMP, ContextTokens, GeneratedTokens",
	.times = "date and time",
	.origin = "Azure/AzurePublicDataset",
	.shape = FORMAT_CSV,
	.columns = azure_columns,
	.row = azure_row,
	.example = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
		   "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109",
};

/* Without an answer the request had failed. */
static int burstgpt_row(struct format_reader *rd)
{
	struct workload_request r;
	int64_t tokens;
	int err;

	(void)format_cell(rd, "Elapsed time");
	(void)format_cell(rd, "Total tokens");
	(void)format_cell(rd, "Log Type");
	format_request(rd, &r);
	r.session = format_cell(rd, "Session ID");
	err = format_cell_count(rd, "Response tokens", &tokens);
	if (!err && tokens == 0)
		return format_note(rd, "rows without response tokens, which are failures, are left "
				       "out");
	if (!err)
		err = format_cell_time(rd, "Timestamp", WORKLOAD_UNIT_S, &r.arrival_ns);
	return err ? err : add(rd, &r, "Request tokens", "Response tokens");
}

static const char *const burstgpt_columns[] = {"Timestamp", "Request tokens", "Response tokens",
					       NULL};

const struct workload_format format_burstgpt = {
	.name = "burstgpt",
	.title = "arrivals and lengths; with `Session ID` also conversations",
	.marks = "columns Timestamp, Request tokens, Response tokens",
	.times = "s",
	.origin = "HPMLL/BurstGPT",
	.shape = FORMAT_CSV,
	.columns = burstgpt_columns,
	.row = burstgpt_row,
	.example = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total "
		   "tokens,Log Type\n5,s1,1.2,ChatGPT,472,18,490,Conversation log\n"
		   "9.5,s1,1.2,ChatGPT,500,20,520,Conversation log\n",
};

static int vidur_row(struct format_reader *rd)
{
	struct workload_request r;
	int err;

	format_request(rd, &r);
	err = format_cell_time(rd, "arrived_at", WORKLOAD_UNIT_S, &r.arrival_ns);
	return err ? err : add(rd, &r, "num_prefill_tokens", "num_decode_tokens");
}

static const char *const vidur_columns[] = {"num_prefill_tokens", "num_decode_tokens", NULL};

const struct workload_format format_vidur = {
	.name = "vidur",
	.title = "arrivals and lengths",
	.marks = "columns num_prefill_tokens, num_decode_tokens, mostly arrived_at",
	.times = "s",
	.origin = "microsoft/vidur",
	.shape = FORMAT_CSV,
	.columns = vidur_columns,
	.row = vidur_row,
	.example = "arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,100,5\n0.75,90,6\n",
};

static int prompt_row(struct format_reader *rd)
{
	struct span prompt = format_cell(rd, "prompt"), other;
	struct workload_request r;
	int err;

	format_request(rd, &r);
	buf_clear(&rd->text);
	err = json_quote(&rd->text, prompt.p, prompt.n);
	r.prompt = buf_span(&rd->text);
	if (!err)
		err = format_cell_count(rd, "output_tokens", &r.output_tokens);
	if (!err && r.output_tokens < 0)
		err = format_cell_count(rd, "output_tokens_count", &r.output_tokens);
	if (!err)
		err = format_cell_count(rd, "prompt_tokens_count", &r.input_tokens);
	other = format_cell(rd, "session_id");
	r.session = other;
	return err ? err : format_add(rd, &r);
}

static const char *const prompt_columns[] = {"prompt", NULL};

const struct workload_format format_prompts_csv = {
	.name = "prompts-csv",
	.title = "a table of prompts",
	.marks = "a column prompt; also output_tokens or output_tokens_count, session_id",
	.origin = "guidellm",
	.shape = FORMAT_CSV,
	.columns = prompt_columns,
	.row = prompt_row,
	.example = "prompt,output_tokens\n\"say \"\"a, b\"\"\",5\nsay d,6\n",
};
