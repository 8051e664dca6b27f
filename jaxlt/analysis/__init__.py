"""Why a minimum is flat or sharp, and for which classes: measures of a loss around parameters."""
