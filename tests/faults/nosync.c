/* Negative control of power.py: a libc whose syncs do nothing, by LD_PRELOAD. */
int fsync(int descriptor) { (void)descriptor; return 0; }
int fdatasync(int descriptor) { (void)descriptor; return 0; }
int syncfs(int descriptor) { (void)descriptor; return 0; }
void sync(void) {}
int msync(void *address, unsigned long length, int flags) { (void)address; (void)length; (void)flags; return 0; }
int sync_file_range(int descriptor, long offset, long bytes, unsigned int flags) {
  (void)descriptor; (void)offset; (void)bytes; (void)flags;
  return 0;
}
