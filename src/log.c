#include "pva/log.h"
