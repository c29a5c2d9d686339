/*
 * Open addressing over keyed hashes; the table that is looked at is swapped as a whole
 * (lib/base/swap.h), so a look-up takes no lock and nothing that it holds can be freed.
 */
#include "lib/router/keys/keys.h"

#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/base/file.h"

bool key_is_valid(struct span key)
{
	for (size_t i = 0; i < key.n; i++)
		if (key.p[i] <= ' ' || key.p[i] > '~')
			return false;
	return key.n > 0 && key.n <= KEY_MAX;
}

static bool is_empty(struct sip_tag t)
{
	return (t.t[0] | t.t[1]) == 0;
}

/* Where the tag is, or the free place where it belongs. The probe sequence depends on a hash with a
 * secret key, so its length tells nothing about the client keys. */
static size_t place_of(const struct key_table *t, struct sip_tag tag)
{
	size_t i = tag.t[0] & t->mask;

	while (!is_empty(t->tag[i]) && !sip_equal(t->tag[i], tag))
		i = (i + 1) & t->mask;
	return i;
}

static int add(struct key_table *t, struct span key, unsigned name)
{
	struct sip_tag tag = sip_hash(&t->secret, key.p, key.n);
	size_t i = place_of(t, tag);

	if (!is_empty(t->tag[i]))
		return PD_EEXIST;
	t->tag[i] = tag;
	t->named[i] = (uint16_t)name;
	t->n++;
	return PD_OK;
}

static struct span without_comment(struct span line)
{
	for (size_t i = 0; i < line.n; i++)
		if (line.p[i] == '#' && (i == 0 || line.p[i - 1] == ' ' || line.p[i - 1] == '\t'))
			line.n = i;
	if (line.n > 0 && line.p[line.n - 1] == '\r')
		line.n--;
	return span_trim(line);
}

/* The line at *at, which moves behind it; false at the end. */
static bool next_line(const struct buf *text, size_t *at, struct span *line)
{
	const char *p = text->data + *at, *eol;

	if (*at >= text->len)
		return false;
	eol = memchr(p, '\n', text->len - *at);
	*line = (struct span){p, eol ? (size_t)(eol - p) : text->len - *at};
	*at += line->n + 1;
	return true;
}

/* Where a key that is there twice stands first. */
static size_t first_line_of(const struct buf *text, struct span key)
{
	struct span line;
	size_t at = 0, number = 1;

	while (next_line(text, &at, &line) && !span_eq(without_comment(line), key))
		number++;
	return number;
}

/* Takes " name=NAME" off the end of the line; an empty span when that is not what stands there. */
static struct span take_name(struct span *key)
{
	const char *at = memchr(key->p, ' ', key->n), *tab = memchr(key->p, '\t', key->n);
	struct span word;

	at = !at || (tab && tab < at) ? tab : at;
	if (!at)
		return (struct span){0};
	word = span_trim((struct span){at, (size_t)(key->p + key->n - at)});
	if (!span_starts(word, SPAN("name=")) || word.n == 5 || word.n - 5 >= KEY_NAME_MAX)
		return (struct span){0};
	word = (struct span){word.p + 5, word.n - 5};
	for (size_t i = 0; i < word.n; i++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-",
			    word.p[i]))
			return (struct span){0};
	key->n = (size_t)(at - key->p);
	return word;
}

/* Its place from 1; 0: there are too many. */
static unsigned intern(struct key_name *list, size_t n, struct span name, bool *fresh)
{
	size_t i = 0;

	while (i < n && !span_eq(name, span_of(list[i].text)))
		i++;
	*fresh = i == n;
	if (i == KEY_NAMES_MAX)
		return 0;
	if (*fresh)
		(void)snprintf(list[i].text, sizeof(list[i].text), "%.*s", (int)name.n, name.p);
	return (unsigned)i + 1;
}

/* The message must not show what may be a mistyped key. */
static int add_line(struct key_table *t, struct span whole, const struct buf *text,
		    const char *path, size_t number, struct pd_msg *msg)
{
	struct span key = without_comment(whole), name;
	unsigned place = 0;
	bool fresh = false;
	size_t i = 0;

	if (key.n == 0)
		return PD_OK;
	name = take_name(&key);
	while (i < key.n && key.p[i] > ' ' && key.p[i] <= '~')
		i++;
	if (i < key.n)
		return pd_fail(msg, PD_EINVAL,
			       "%s:%zu:%zu: found %s, expected one key of visible characters per "
			       "line, if wanted with name=NAME",
			       path, number, (size_t)(key.p - whole.p) + i + 1,
			       key.p[i] == ' ' || key.p[i] == '\t'
				       ? "a second word"
				       : "a byte that is not visible ASCII");
	if (key.n > KEY_MAX)
		return pd_fail(msg, PD_EINVAL,
			       "%s:%zu:1: found a key of %zu characters, expected at most %d", path,
			       number, key.n, KEY_MAX);
	if (t->n == KEYS_MAX)
		return pd_fail(msg, PD_EINVAL, "%s:%zu:1: found more than %d keys", path, number,
			       KEYS_MAX);
	if (name.n > 0) {
		place = intern(t->name, t->nnames, name, &fresh);
		t->nnames += place && fresh;
		if (!place)
			return pd_fail(msg, PD_EINVAL, "%s:%zu:1: found more than %d names", path,
				       number, KEY_NAMES_MAX);
	}
	if (add(t, key, place) == PD_EEXIST)
		return pd_fail(msg, PD_EINVAL, "%s:%zu:1: duplicate key, first on line %zu", path,
			       number, first_line_of(text, key));
	return PD_OK;
}

static int size_for(struct key_table *t, const struct buf *text)
{
	size_t lines = 1, cap = 16;

	for (size_t i = 0; i < text->len; i++)
		lines += text->data[i] == '\n';
	lines = lines < KEYS_MAX ? lines : KEYS_MAX;
	while (cap < 2 * lines)
		cap *= 2;
	t->tag = calloc(cap, sizeof(*t->tag));
	t->named = calloc(cap, sizeof(*t->named));
	t->name = calloc(KEY_NAMES_MAX, sizeof(*t->name));
	t->mask = cap - 1;
	return t->tag && t->named && t->name ? PD_OK : PD_ENOMEM;
}

static int read_lines(struct key_table *t, const struct buf *text, const char *path,
		      struct pd_msg *msg)
{
	size_t at = 0, number = 1;
	struct span line;
	int err = PD_OK;

	for (; !err && next_line(text, &at, &line); number++)
		err = add_line(t, line, text, path, number, msg);
	return err;
}

int key_table_read(struct key_table *out, const char *path, struct pd_msg *msg)
{
	struct buf text;
	int err;

	*out = (struct key_table){0};
	buf_init(&text, KEYS_FILE_MAX);
	sip_key_new(&out->secret);
	err = file_read(path, &text, msg);
	if (!err && size_for(out, &text))
		err = pd_fail(msg, PD_ENOMEM, "out of memory");
	if (!err && text.len > 0)
		err = read_lines(out, &text, path, msg);
	if (!err && out->n == 0)
		err = pd_fail(msg, PD_EINVAL,
			      "%s:1:1: found no key, expected at least one: without a key every "
			      "request would be refused",
			      path);
	if (text.data)
		explicit_bzero(text.data, text.len);
	buf_release(&text);
	if (err)
		key_table_release(out);
	return err;
}

void key_table_release(struct key_table *t)
{
	free(t->tag);
	free(t->named);
	free(t->name);
	*t = (struct key_table){0};
}

/* Names that are new get a place behind the old ones; the table's places become those. */
static void keep_names(struct keys *k, struct key_table *t)
{
	unsigned at[KEY_NAMES_MAX + 1] = {0}, n = atomic_load(&k->nnames);
	bool fresh;

	for (size_t i = 0; i < t->nnames; i++) {
		at[i + 1] = intern(k->name, n, span_of(t->name[i].text), &fresh);
		n += at[i + 1] && fresh;
	}
	for (size_t i = 0; t->nnames > 0 && i <= t->mask; i++)
		t->named[i] = (uint16_t)at[t->named[i]];
	atomic_store(&k->nnames, n);
}

void keys_swap(struct keys *k, struct key_table *take)
{
	keep_names(k, take);
	k->table[swap_spare(&k->swap)] = *take;
	*take = (struct key_table){0};
	key_table_release(&k->table[swap_publish(&k->swap)]);
}

size_t keys_count(struct keys *k)
{
	struct swap_look look = swap_enter(&k->swap);
	size_t n = k->table[look.place].n;

	swap_leave(look);
	return n;
}

bool keys_has(struct keys *k, struct span key)
{
	struct swap_look look = swap_enter(&k->swap);
	const struct key_table *t = &k->table[look.place];
	bool found = t->tag && !is_empty(t->tag[place_of(t, sip_hash(&t->secret, key.p, key.n))]);

	swap_leave(look);
	return found;
}

bool keys_admit(struct keys *k, struct span key, const char **name)
{
	struct swap_look look = swap_enter(&k->swap);
	const struct key_table *t = &k->table[look.place];
	size_t i = t->tag ? place_of(t, sip_hash(&t->secret, key.p, key.n)) : 0;
	bool found = t->tag && !is_empty(t->tag[i]);
	unsigned place = found ? t->named[i] : 0;

	swap_leave(look);
	*name = place ? k->name[place - 1].text : NULL;
	if (place)
		atomic_fetch_add_explicit(&k->requests[place - 1], 1, memory_order_relaxed);
	return found;
}

void keys_release(struct keys *k)
{
	key_table_release(&k->table[0]);
	key_table_release(&k->table[1]);
}
