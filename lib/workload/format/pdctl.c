/* What pdctl itself writes: workloads of `gen`, records out of captures, and the formats that have
 * no code of their own. */
#include "lib/workload/format/formats.h"

#include "lib/workload/capture_file.h"

static bool has(const struct json_object *o, const char *name)
{
	return json_object_get(o, name) != NULL;
}

static bool is_pdctl(const struct json_object *o)
{
	return has(o, "picked") || has(o, "prefix_group") || has(o, "prompt_chars") ||
	       has(o, "block_tokens");
}

const struct workload_format format_pdctl = {
	.name = "pdctl",
	.title = "pdctl gen, records of a capture: prompts or lengths, keys, prefix groups",
	.marks = "`prefix_group`, `prompt_chars`, `picked` or `block_tokens`",
	.times = "ms",
	.origin = "[gen](gen.md)",
	.shape = FORMAT_JSON,
	.own_ms = true,
	.is = is_pdctl,
	.example = "{\"prompt\":\"a b c\",\"prompt_cache_key\":\"key_0\",\"prefix_group\":0,"
		   "\"prompt_chars\":5,\"prompt_tokens_approx\":2,\"output_tokens\":7,"
		   "\"timestamp\":12.5}\n",
};

static bool never(const struct json_object *o)
{
	(void)o;
	return false;
}

const struct workload_format format_capture = {
	.name = "capture",
	.title = "a capture of pdctl serve: requests, keys and the workers that were chosen",
	.marks = "an SQLite file",
	.times = "ns",
	.origin = "[capture](capture.md)",
	.shape = FORMAT_JSON,
	.own_ms = true,
	.is = never,
};

const struct workload_format format_text = {
	.name = "text",
	.title = "prompts, one a line; or a JSON array of texts",
	.marks = "a name that ends with .txt, or --dataset-format text",
	.origin = "guidellm, `vllm bench` sonnet",
	.shape = FORMAT_TEXT,
	.example = NULL,
};
