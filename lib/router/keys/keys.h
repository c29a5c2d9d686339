/*
 * The keys of clients, from a file: one per line, with "name=NAME" behind it if wanted, `#` begins
 * a comment. Only keyed hashes of them stay in memory. A look-up costs one hash and takes the same
 * time for each key; a reload swaps the whole table. Look-ups are thread-safe, also against a swap;
 * loads are for one thread at a time.
 */
#ifndef PD_ROUTER_KEYS_H
#define PD_ROUTER_KEYS_H

#include "lib/base/err.h"
#include "lib/base/siphash.h"
#include "lib/base/span.h"
#include "lib/base/swap.h"

#define KEYS_MAX      100000 /* in a file */
#define KEY_MAX	      8192   /* bytes of a key; tokens of identity providers are long */
#define KEYS_FILE_MAX (64u << 20)

#define KEY_NAMES_MAX 256 /* all that a process has seen */
#define KEY_NAME_MAX  64

struct key_name {
	char text[KEY_NAME_MAX];
};

/* Open addressing, at most half full. */
struct key_table {
	struct sip_key secret;
	struct sip_tag *tag;   /* owned; zero: empty */
	uint16_t *named;       /* owned; beside `tag`: the place of its name from 1, 0: none */
	struct key_name *name; /* owned */
	size_t mask, n, nnames;
};

/* The table that is looked at, and a place for the next one. */
struct keys {
	struct swap swap;
	struct key_table table[2];
	/* Names stay from table to table, so that what points to them may. */
	_Atomic unsigned nnames;
	struct key_name name[KEY_NAMES_MAX];
	_Atomic uint64_t requests[KEY_NAMES_MAX]; /* with a key of this name */
};

/*
 * Reads a file into `out`. PD_EINVAL names file, line and column, never what stands there; an empty
 * file is refused, as every request would be.
 */
int key_table_read(struct key_table *out, const char *path, struct pd_msg *msg) PD_MUST;
void key_table_release(struct key_table *t);

/* Puts a table (taken over) in place of the present one, which is released. */
void keys_swap(struct keys *k, struct key_table *take);
size_t keys_count(struct keys *k);
bool keys_has(struct keys *k, struct span key);
/* The same for a request: it is counted for the key's name, *name is that or NULL. */
bool keys_admit(struct keys *k, struct span key, const char **name);
void keys_release(struct keys *k);

/* Letters, digits and the other visible characters, at most KEY_MAX of them. */
bool key_is_valid(struct span key);

#endif
