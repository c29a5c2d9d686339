/*
 * A recursive-descent parser that writes a small stack program: literal text, numbers, variables,
 * operators, print. Evaluation is one loop over the program with every overflow checked, so a
 * hostile pattern may fail but its behaviour is defined.
 */
#include "lib/workload/pattern.h"

#include <stdlib.h>
#include <string.h>

enum op_kind {
	OP_TEXT,
	OP_NUMBER,
	OP_VAR,
	OP_ADD,
	OP_SUB,
	OP_MUL,
	OP_DIV,
	OP_MOD,
	OP_NEG,
	OP_PRINT
};

struct op {
	enum op_kind kind;
	uint32_t column; /* 1-based, of the operator or value */
	int64_t value;	 /* the number; the variable's index; the text's offset */
	uint32_t len;	 /* of the text */
};

struct pattern {
	char *text; /* the literal pieces, one after the other */
	size_t text_len;
	struct op *op;
	size_t n;
	size_t cap;
};

/* Pending values per parenthesis level: one for a sum, one for a product, one being read. */
#define STACK_MAX (3 * (PATTERN_DEPTH_MAX + 2))

static const struct {
	const char *name;
	size_t offset;
} vars[] = {
	{"i", offsetof(struct pattern_vars, i)},
	{"request_id", offsetof(struct pattern_vars, i)},
	{"session", offsetof(struct pattern_vars, session)},
	{"turn", offsetof(struct pattern_vars, turn)},
	{"prefix", offsetof(struct pattern_vars, prefix)},
};

#define NVARS (sizeof(vars) / sizeof(vars[0]))

struct parser {
	struct pattern *p;
	const char *text;
	size_t at;
	unsigned depth;
	struct pd_msg *msg;
};

static int fail_at(struct parser *c, size_t at, const char *what)
{
	return pd_fail(c->msg, PD_EINVAL, "column %zu: %s", at + 1, what);
}

static int emit(struct parser *c, enum op_kind kind, size_t at, int64_t value, size_t len)
{
	struct pattern *p = c->p;
	size_t cap = p->cap ? p->cap * 2 : 16;
	struct op *op;

	if (p->n == p->cap) {
		op = realloc(p->op, cap * sizeof(*op));
		if (!op)
			return PD_ENOMEM;
		p->op = op;
		p->cap = cap;
	}
	p->op[p->n++] = (struct op){kind, (uint32_t)at + 1, value, (uint32_t)len};
	return PD_OK;
}

static void skip_space(struct parser *c)
{
	while (c->text[c->at] == ' ' || c->text[c->at] == '\t')
		c->at++;
}

static int parse_sum(struct parser *c);

static int parse_number(struct parser *c)
{
	size_t start = c->at;
	int64_t v = 0;

	for (; c->text[c->at] >= '0' && c->text[c->at] <= '9'; c->at++)
		if (__builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, c->text[c->at] - '0', &v))
			return fail_at(c, start, "number does not fit into 64 bits");
	return emit(c, OP_NUMBER, start, v, 0);
}

static bool is_name(char ch)
{
	return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || ch == '_' ||
	       (ch >= '0' && ch <= '9');
}

static int parse_var(struct parser *c)
{
	size_t start = c->at, n;

	while (is_name(c->text[c->at]))
		c->at++;
	n = c->at - start;
	for (size_t i = 0; i < NVARS; i++)
		if (strlen(vars[i].name) == n && memcmp(vars[i].name, c->text + start, n) == 0)
			return emit(c, OP_VAR, start, (int64_t)vars[i].offset, 0);
	return pd_fail(c->msg, PD_EINVAL,
		       "column %zu: unknown variable '%.*s', expected i, request_id, session, turn "
		       "or prefix",
		       start + 1, (int)(n < 40 ? n : 40), c->text + start);
}

static int parse_atom(struct parser *c)
{
	char ch;
	int err;

	skip_space(c);
	ch = c->text[c->at];
	if (ch >= '0' && ch <= '9')
		return parse_number(c);
	if (is_name(ch))
		return parse_var(c);
	if (ch != '(')
		return fail_at(c, c->at, "expected a number, a variable or '('");
	c->at++;
	err = parse_sum(c);
	if (err)
		return err;
	skip_space(c);
	if (c->text[c->at] != ')')
		return fail_at(c, c->at, "expected ')'");
	c->at++;
	return PD_OK;
}

/* Signs and atoms. The depth counts both, because both recurse. */
static int parse_unary(struct parser *c)
{
	size_t at;
	char ch;
	int err;

	if (++c->depth > PATTERN_DEPTH_MAX)
		return fail_at(c, c->at, "more than 32 nested parentheses and signs");
	skip_space(c);
	at = c->at;
	ch = c->text[at];
	if (ch == '-' || ch == '+') {
		c->at++;
		err = parse_unary(c);
		if (!err && ch == '-')
			err = emit(c, OP_NEG, at, 0, 0);
	} else {
		err = parse_atom(c);
	}
	c->depth--;
	return err;
}

static int parse_product(struct parser *c)
{
	int err = parse_unary(c);

	while (!err) {
		size_t at;
		char ch;

		skip_space(c);
		at = c->at;
		ch = c->text[at];
		if (ch != '*' && ch != '/' && ch != '%')
			break;
		c->at += ch == '/' && c->text[at + 1] == '/' ? 2 : 1;
		err = parse_unary(c);
		if (!err)
			err = emit(c, ch == '*' ? OP_MUL : ch == '%' ? OP_MOD : OP_DIV, at, 0, 0);
	}
	return err;
}

static int parse_sum(struct parser *c)
{
	int err = parse_product(c);

	while (!err) {
		size_t at;
		char ch;

		skip_space(c);
		at = c->at;
		ch = c->text[at];
		if (ch != '+' && ch != '-')
			break;
		c->at++;
		err = parse_product(c);
		if (!err)
			err = emit(c, ch == '+' ? OP_ADD : OP_SUB, at, 0, 0);
	}
	return err;
}

static int parse_expression(struct parser *c, char close)
{
	size_t open = c->at++;
	int err = parse_sum(c);

	if (err)
		return err;
	skip_space(c);
	if (c->text[c->at] != close)
		return pd_fail(
			c->msg, PD_EINVAL,
			"column %zu: expected an operator or '%c' to close the '%c' of column %zu",
			c->at + 1, close, c->text[open], open + 1);
	c->at++;
	return emit(c, OP_PRINT, open, 0, 0);
}

/* Literal text up to the next bracket; a doubled bracket stands for itself. */
static int parse_literal(struct parser *c)
{
	struct pattern *p = c->p;
	size_t start = c->at, from = p->text_len;

	for (; c->text[c->at]; c->at++) {
		char ch = c->text[c->at];

		if (strchr("<>{}", ch)) {
			if (c->text[c->at + 1] != ch)
				break;
			c->at++;
		}
		p->text[p->text_len++] = ch;
	}
	return p->text_len > from ? emit(c, OP_TEXT, start, (int64_t)from, p->text_len - from)
				  : PD_OK;
}

static int parse_pattern(struct parser *c)
{
	while (c->text[c->at]) {
		int err = parse_literal(c);
		char ch = c->text[c->at];

		if (err)
			return err;
		if (ch == '\0')
			break;
		if (ch == '>' || ch == '}')
			return fail_at(
				c, c->at,
				"unmatched closing bracket (write it twice for a literal one)");
		err = parse_expression(c, ch == '<' ? '>' : '}');
		if (err)
			return err;
	}
	return PD_OK;
}

int pattern_new(struct pattern **out, const char *text, struct pd_msg *msg)
{
	struct parser c = {.text = text, .msg = msg};
	size_t n = strlen(text);
	int err;

	*out = NULL;
	if (n > PATTERN_TEXT_MAX)
		return pd_fail(msg, PD_ETOOBIG, "pattern of %zu bytes, expected at most %d", n,
			       PATTERN_TEXT_MAX);
	c.p = calloc(1, sizeof(*c.p));
	if (!c.p)
		return PD_ENOMEM;
	c.p->text = malloc(n + 1);
	err = c.p->text ? parse_pattern(&c) : PD_ENOMEM;
	if (err) {
		pattern_free(c.p);
		return err;
	}
	*out = c.p;
	return PD_OK;
}

void pattern_free(struct pattern *p)
{
	if (!p)
		return;
	free(p->text);
	free(p->op);
	free(p);
}

/* Rounds towards minus infinity. False: division by zero or the one quotient that does not fit. */
static bool floor_divide(int64_t a, int64_t b, bool remainder, int64_t *out)
{
	int64_t q, r;

	if (b == 0 || (b == -1 && a == INT64_MIN && !remainder))
		return false;
	if (b == -1) {
		*out = remainder ? 0 : -a;
		return true;
	}
	q = a / b;
	r = a % b;
	if (r != 0 && (r < 0) != (b < 0)) {
		q--;
		r += b;
	}
	*out = remainder ? r : q;
	return true;
}

static bool apply(enum op_kind kind, int64_t a, int64_t b, int64_t *out)
{
	switch (kind) {
	case OP_ADD:
		return !__builtin_add_overflow(a, b, out);
	case OP_SUB:
		return !__builtin_sub_overflow(a, b, out);
	case OP_MUL:
		return !__builtin_mul_overflow(a, b, out);
	default:
		return floor_divide(a, b, kind == OP_MOD, out);
	}
}

static int eval_op(const struct pattern *p, const struct op *op, const struct pattern_vars *v,
		   int64_t *stack, size_t *top, struct buf *out)
{
	int64_t value;

	switch (op->kind) {
	case OP_TEXT:
		return buf_append(out, p->text + op->value, op->len);
	case OP_PRINT:
		return buf_printf(out, "%lld", (long long)stack[--*top]);
	case OP_NUMBER:
		stack[(*top)++] = op->value;
		return PD_OK;
	case OP_VAR:
		memcpy(&value, (const char *)v + op->value, sizeof(value));
		stack[(*top)++] = value;
		return PD_OK;
	case OP_NEG:
		return __builtin_sub_overflow(0, stack[*top - 1], &stack[*top - 1]) ? PD_EINVAL
										    : PD_OK;
	default:
		--*top;
		return apply(op->kind, stack[*top - 1], stack[*top], &stack[*top - 1]) ? PD_OK
										       : PD_EINVAL;
	}
}

int pattern_eval(const struct pattern *p, const struct pattern_vars *v, struct buf *out,
		 struct pd_msg *msg)
{
	int64_t stack[STACK_MAX] = {0};
	size_t top = 0, start = out->len;

	for (size_t i = 0; i < p->n; i++) {
		const struct op *op = &p->op[i];
		bool zero = (op->kind == OP_DIV || op->kind == OP_MOD) && top >= 1 &&
			    stack[top - 1] == 0;
		int err = eval_op(p, op, v, stack, &top, out);

		if (!err)
			continue;
		out->len = start;
		if (err == PD_EINVAL)
			return pd_fail(msg, err, "column %u: %s", op->column,
				       zero ? "division by zero"
					    : "result does not fit into 64 bits");
		return err;
	}
	return PD_OK;
}
