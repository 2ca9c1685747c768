package controller

// problem is why a spec cannot be carried out.
type problem struct {
	reason  string
	message string
}
