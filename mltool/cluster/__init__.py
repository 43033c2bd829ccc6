"""The processes of one training: who they are, how they meet, and which of them writes the run."""
