/*
 * "Did you mean": shared by commands, options, keys of files, policies and metrics.
 * Thread-safe, allocates nothing.
 */
#ifndef PD_BASE_NEAREST_H
#define PD_BASE_NEAREST_H

/*
 * The nearest of `words` (NULL-terminated) by edit distance, the first of equals, or NULL when none
 * is close: a third of the letters and one more may differ. Words of 64 letters and more are close
 * to nothing.
 */
const char *nearest_word(const char *word, const char *const *words);

#endif
