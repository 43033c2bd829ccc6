"""What data come from: folders of files, arrays, records, data sets of other libraries, a function of the user."""
