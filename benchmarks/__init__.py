"""Side by side with what a user could take instead, in one run. Reports; judges nothing."""
