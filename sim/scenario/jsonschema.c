/* A walk over the tables of schema.c. Words that a text is limited to stand here a second time, and
 * a test compares them with what is accepted. */
#include "sim/scenario/jsonschema.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

#include "sim/scenario/schema.h"

#define DEPTH_MAX 8

static const struct {
	const char *path, *words; /* separated by spaces */
} choices[] = {
	{"workload.generate.assign", "draw round_robin"},
	{"workload.generate.key", "session group none"},
	{"workload.generate.order", "interleaved shuffled"},
	{"workload.gen.kind", "shared-prefix multi-prefix conversations"},
	{"workload.timestamp_unit", "auto s ms us ns"},
	{"events[].action", "join leave fail slow drain flap"},
	{"events[].pool", "prefill decode"},
	{"decider.kind", "always never prefix cost"},
	{"link.kind", "nvlink rdma ethernet pcie filesystem"},
	{"host_link.kind", "nvlink rdma ethernet pcie filesystem"},
	{"routers.by", "request session"},
};

static const struct {
	const char *path, *text;
} texts[] = {
	{"workload", "file, gen or generate: one of them"},
	{"workers", "a plain pool; or prefill and decode"},
	{"policies", "POLICY, POLICY:PARAMETER=VALUE, POLICY@fbi; P/D: PREFILL/DECODE"},
	{"expect", "[selector ':'] [pool '.'] metric op (number | [number '*'] metric ['of' "
		   "selector])"},
	{"sweep", "other values of fields of this file: grid or list"},
	{"repetitions", "replays of each row, with the seeds seed, seed + 1, ..."},
	{"objective", "a metric, or a weighted sum: 0.7*p99_ttft_ms + 0.3*mean_tpot_ms"},
	{"goals", "what a request needs to count as good"},
	{"events", "what happens to workers, at_request or at_ms"},
	{"signals", "how old what routers read from engines is"},
};

static cJSON *any_of(const char *const *types, size_t n)
{
	cJSON *o = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(o, "type");

	for (size_t i = 0; i < n; i++)
		(void)cJSON_AddItemToArray(list, cJSON_CreateString(types[i]));
	return o;
}

static void add_words(cJSON *o, const char *words)
{
	cJSON *list;
	char word[64];

	cJSON_DeleteItemFromObject(o, "type");
	list = cJSON_AddArrayToObject(o, "enum");
	while (*words) {
		size_t n = strcspn(words, " ");

		(void)snprintf(word, sizeof(word), "%.*s", (int)n, words);
		(void)cJSON_AddItemToArray(list, cJSON_CreateString(word));
		words += n + (words[n] == ' ');
	}
}

static cJSON *value_of(const cyaml_schema_value_t *v, const char *path, unsigned depth);

static cJSON *mapping_of(const cyaml_schema_field_t *f, const char *path, unsigned depth)
{
	cJSON *o = cJSON_CreateObject(), *properties, *required;
	char at[160];

	(void)cJSON_AddStringToObject(o, "type", "object");
	(void)cJSON_AddFalseToObject(o, "additionalProperties");
	properties = cJSON_AddObjectToObject(o, "properties");
	required = cJSON_CreateArray();
	for (; f->key; f++) {
		(void)snprintf(at, sizeof(at), "%s%s%s", path, *path ? "." : "", f->key);
		(void)cJSON_AddItemToObject(properties, f->key, value_of(&f->value, at, depth + 1));
		if (!(f->value.flags & CYAML_FLAG_OPTIONAL))
			(void)cJSON_AddItemToArray(required, cJSON_CreateString(f->key));
	}
	if (cJSON_GetArraySize(required) > 0)
		(void)cJSON_AddItemToObject(o, "required", required);
	else
		cJSON_Delete(required);
	return o;
}

/* Keys are paths. */
static cJSON *sweep_of(void)
{
	return cJSON_Parse(
		"{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{"
		"\"grid\":{\"type\":\"object\",\"minProperties\":1,\"additionalProperties\":"
		"{\"type\":\"array\",\"minItems\":1}},"
		"\"list\":{\"type\":\"array\",\"minItems\":1,\"items\":{\"type\":\"object\","
		"\"minProperties\":1}},"
		"\"front\":{\"type\":\"array\",\"minItems\":2,\"maxItems\":4,\"items\":{\"type\":"
		"\"string\"}}},"
		"\"oneOf\":[{\"required\":[\"grid\"]},{\"required\":[\"list\"]}]}");
}

static cJSON *value_of(const cyaml_schema_value_t *v, const char *path, unsigned depth)
{
	/* YAML reads a plain 2 or yes as a number or a truth value */
	static const char *const text[] = {"string", "number", "boolean"}, *const real[] = {
										   "number",
										   "string"};
	cJSON *o = NULL;
	char at[160];

	if (depth > DEPTH_MAX)
		return cJSON_CreateObject();
	switch (v->type) {
	case CYAML_STRING:
		o = any_of(text, 3);
		break;
	case CYAML_UINT:
		o = cJSON_CreateObject();
		(void)cJSON_AddStringToObject(o, "type", "integer");
		(void)cJSON_AddNumberToObject(o, "minimum", 0);
		break;
	case CYAML_FLOAT:
		o = any_of(real, 2); /* inf */
		(void)cJSON_AddStringToObject(o, "pattern",
					      "^[-+]?([0-9.eE+-]+|\\.?[iI][nN][fF])$");
		break;
	case CYAML_BOOL:
		o = cJSON_CreateObject();
		(void)cJSON_AddStringToObject(o, "type", "boolean");
		break;
	case CYAML_MAPPING:
		o = mapping_of(v->mapping.fields, path, depth);
		break;
	case CYAML_SEQUENCE:
		(void)snprintf(at, sizeof(at), "%s[]", path);
		o = cJSON_CreateObject();
		(void)cJSON_AddStringToObject(o, "type", "array");
		(void)cJSON_AddNumberToObject(o, "minItems", (double)v->sequence.min);
		(void)cJSON_AddNumberToObject(o, "maxItems", (double)v->sequence.max);
		(void)cJSON_AddItemToObject(o, "items", value_of(v->sequence.entry, at, depth + 1));
		break;
	default:
		o = strcmp(path, "sweep") == 0 ? sweep_of() : cJSON_CreateObject();
	}
	for (size_t i = 0; i < sizeof(choices) / sizeof(choices[0]); i++)
		if (strcmp(choices[i].path, path) == 0)
			add_words(o, choices[i].words);
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (strcmp(texts[i].path, path) == 0)
			(void)cJSON_AddStringToObject(o, "description", texts[i].text);
	return o;
}

struct cJSON *scenario_json_schema(void)
{
	struct scenario_schema s;
	cJSON *o;

	scenario_schema_make(&s);
	o = mapping_of(s.top.mapping.fields, "", 0);
	(void)cJSON_AddStringToObject(o, "$schema", "https://json-schema.org/draft/2020-12/schema");
	(void)cJSON_AddStringToObject(o, "title", "scenario of pdctl simulate");
	return o;
}
