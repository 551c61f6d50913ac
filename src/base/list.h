// An intrusive doubly linked list. An element derives from Link<Tag>, so that it can be in several lists
// (one a tag), leaves one in O(1) without knowing which, and costs no allocation. The list owns nothing;
// an element must leave before it dies (asserted).
#pragma once

#include <cassert>
#include <cstddef>

namespace penstock {

template <class Tag>
class Link {
  public:
    Link() = default;
    Link(const Link&) = delete;
    Link& operator=(const Link&) = delete;
    ~Link() { assert(!is_linked()); }

    bool is_linked() const { return next_ != nullptr; }
    void unlink() {
        if (!is_linked()) return;
        next_->prev_ = prev_;
        prev_->next_ = next_;
        next_ = prev_ = nullptr;
    }

  private:
    template <class T, class G>
    friend class List;
    Link* next_ = nullptr;
    Link* prev_ = nullptr;
};

template <class T, class Tag>
class List {
  public:
    List() { root_.next_ = root_.prev_ = &root_; }
    List(const List&) = delete;
    List& operator=(const List&) = delete;
    ~List() {
        clear();
        root_.next_ = root_.prev_ = nullptr;
    }

    bool empty() const { return root_.next_ == &root_; }
    T* front() const { return empty() ? nullptr : cast(root_.next_); }
    T* back() const { return empty() ? nullptr : cast(root_.prev_); }
    T* next(const T& element) const {
        auto* n = static_cast<const Node&>(element).next_;
        return n == &root_ ? nullptr : cast(n);
    }
    T* prev(const T& element) const {
        auto* p = static_cast<const Node&>(element).prev_;
        return p == &root_ ? nullptr : cast(p);
    }
    void insert_after(T& place, T& element) { insert(place, element); }
    void push_back(T& element) { insert(*root_.prev_, element); }
    void push_front(T& element) { insert(root_, element); }
    T* pop_front() {
        T* element = front();
        if (element) static_cast<Node&>(*element).unlink();
        return element;
    }
    void clear() {
        while (pop_front()) {
        }
    }
    // Takes every element of `other`, behind our own.
    void splice_back(List& other) {
        if (other.empty()) return;
        Node* first = other.root_.next_;
        Node* last = other.root_.prev_;
        other.root_.next_ = other.root_.prev_ = &other.root_;
        first->prev_ = root_.prev_;
        root_.prev_->next_ = first;
        last->next_ = &root_;
        root_.prev_ = last;
    }

  private:
    using Node = Link<Tag>;
    static T* cast(Node* node) { return static_cast<T*>(node); }
    void insert(Node& after, T& element) {
        Node& node = element;
        assert(!node.is_linked());
        node.prev_ = &after;
        node.next_ = after.next_;
        after.next_->prev_ = &node;
        after.next_ = &node;
    }
    Node root_;
};

}  // namespace penstock
