#include <gloo/forward.h>
