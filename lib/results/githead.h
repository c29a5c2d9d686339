/* The commit that a folder stands on, read from git's files. */
#ifndef PD_RESULTS_GITHEAD_H
#define PD_RESULTS_GITHEAD_H

#define GITHEAD_CAP 65 /* of SHA-256, with the terminator */

/*
 * Writes the commit of `folder` or of the next folder above that has .git (a folder, or the file of
 * a worktree) as hex digits; "" when there is none, or it cannot be read. At most 64 folders up.
 */
void githead(const char *folder, char out[GITHEAD_CAP]);

#endif
